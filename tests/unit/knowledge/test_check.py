"""What the cloud refuses of a gap before it keeps any of it; each refusal is of bytes that were really read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_gap import BIASES, weights

from diredi.codecs import codec_named
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, InvalidInput, WrongState
from diredi.knowledge.check import check_gap_file
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

KNOWN = LabelSpace(names=("car", "person"))
GROWN = KNOWN.expand(["forklift"])


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "tutor.safetensors"
    spec = DetectorSpec(architecture="yolo11n", image_size=64, labels=KNOWN)
    return path, weights(1).save(path, spec.to_metadata())


def written(
    folder: Path, gap: WeightMap, base_id: str, labels: LabelSpace = GROWN, codec: str = "int8-row-zstd"
) -> Path:
    path = folder / "gap"
    path.write_bytes(Gap(gap, GapNote(base_id=base_id, labels=labels, base_classes=2)).to_bytes(codec))
    return path


def good() -> WeightMap:
    return compute(weights(2, classes=3), weights(1), weights(1))


def test_a_good_gap_is_told_in_metrics(tmp_path: Path, base: tuple[Path, str]) -> None:
    checked = check_gap_file(written(tmp_path, good(), base[1]), "int8-row-zstd", *base, GROWN)
    assert checked.fp32_bytes == weights(1).fp32_bytes
    assert checked.schema_digest == good().schema_digest()
    assert checked.norm == pytest.approx(good().norm(), rel=1e-2)


def test_a_gap_for_another_base_is_refused(tmp_path: Path, base: tuple[Path, str]) -> None:
    with pytest.raises(WrongState, match="sha256:beef"):
        check_gap_file(written(tmp_path, good(), "sha256:beef"), "int8-row-zstd", *base, GROWN)


def test_an_unknown_codec_is_refused(tmp_path: Path, base: tuple[Path, str]) -> None:
    with pytest.raises(InvalidInput, match="'gzip'"):
        check_gap_file(written(tmp_path, good(), base[1]), "gzip", *base, GROWN)


def test_a_gap_in_another_codec_than_the_manifest_says_is_refused(tmp_path: Path, base: tuple[Path, str]) -> None:
    with pytest.raises(CorruptData, match="fp32-zstd"):
        check_gap_file(written(tmp_path, good(), base[1]), "fp32-zstd", *base, GROWN)


def test_a_truncated_gap_is_refused(tmp_path: Path, base: tuple[Path, str]) -> None:
    path = written(tmp_path, good(), base[1])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptData):
        check_gap_file(path, "int8-row-zstd", *base, GROWN)


def test_other_classes_than_the_cloud_gave_out_are_refused(tmp_path: Path, base: tuple[Path, str]) -> None:
    path = written(tmp_path, good(), base[1], KNOWN.expand(["crane"]))
    with pytest.raises(InvalidInput, match="crane"):
        check_gap_file(path, "int8-row-zstd", *base, GROWN)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"0.conv.weight": np.zeros((4, 3, 1, 1), np.float32)}, r"0\.conv\.weight"),
        ({"0.conv.weight": np.zeros((4, 3, 3, 3), np.float64)}, r"0\.conv\.weight"),
        ({"backdoor.weight": np.zeros(3, np.float32)}, r"backdoor\.weight"),
        ({"0.bn.num_batches_tracked": np.array(1, np.int64)}, "num_batches_tracked"),
        ({BIASES: np.zeros(4, np.float32)}, BIASES),
    ],
)
def test_a_schema_that_is_not_the_bases_is_refused_by_name(
    tmp_path: Path, base: tuple[Path, str], change: dict[str, np.ndarray], named: str
) -> None:
    path = written(tmp_path, WeightMap({**good(), **change}), base[1])
    with pytest.raises(InvalidInput, match=named):
        check_gap_file(path, "int8-row-zstd", *base, GROWN)


def test_a_gap_without_the_rows_of_its_new_class_is_refused(tmp_path: Path, base: tuple[Path, str]) -> None:
    path = written(tmp_path, good().selected(lambda name: "cv3" not in name), base[1])
    with pytest.raises(InvalidInput, match="no rows"):
        check_gap_file(path, "int8-row-zstd", *base, GROWN)


def test_a_nan_that_was_written_past_the_codec_is_refused_by_name(tmp_path: Path, base: tuple[Path, str]) -> None:
    path = tmp_path / "gap"
    spoiled = spoil(good(), base[1])
    path.write_bytes(spoiled)
    assert np.isnan(codec_named("fp32-zstd").decode(spoiled)[BIASES]).any()
    with pytest.raises(InvalidInput, match=BIASES):
        check_gap_file(path, "fp32-zstd", *base, GROWN)


def spoil(gap: WeightMap, base_id: str) -> bytes:
    """A gap file with a right digest and a NaN in it, as only somebody who writes it by hand can make."""
    from diredi.codecs.container import pack
    from diredi.codecs.packed import header_of, stored

    bad = WeightMap({**gap, BIASES: np.array([0, np.nan, 0], np.float32)})
    note = GapNote(base_id=base_id, labels=GROWN, base_classes=2)
    arrays = [header_of(name, array, "raw") for name, array in bad.items()]
    payload = b"".join(stored(entry, bad[entry.name]) for entry in arrays)
    return pack("fp32-zstd", arrays, payload, {"diredi.gap": note.model_dump_json()})


def test_a_server_that_checks_gaps_and_recipes_does_not_load_torch() -> None:
    code = "import sys, diredi.knowledge.check, diredi.knowledge.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
