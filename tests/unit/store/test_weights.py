"""Weights as a value: algebra, schema, digest, and a file that is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from diredi.errors import CorruptData, InvalidInput
from diredi.store.weights import WeightMap, read_metadata, read_schema


def weights(seed: int = 0) -> WeightMap:
    rng = np.random.default_rng(seed)
    return WeightMap({"b": rng.normal(0, 1, (2, 3)).astype(np.float32), "a": np.array(seed, np.int64)})


def test_arithmetic_works_on_floats_and_takes_counters_from_the_left() -> None:
    total = weights(1) + weights(2) * 2.0 - weights(2)
    np.testing.assert_allclose(total["b"], weights(1)["b"] + weights(2)["b"], rtol=1e-6)
    assert total["a"] == 1
    assert total["b"].dtype == np.float32


def test_norm_counts_every_float_and_no_counter() -> None:
    assert WeightMap({"x": np.array([3.0, 4.0], np.float32), "n": np.array(100)}).norm() == 5.0


def test_maps_that_do_not_fit_are_refused_at_the_first_key_that_differs() -> None:
    with pytest.raises(InvalidInput, match="'b'"):
        weights() + WeightMap({"a": np.array(0, np.int64), "b": np.zeros((3, 2), np.float32)})
    with pytest.raises(InvalidInput, match="'c'"):
        weights().check_same_schema(WeightMap({**weights(), "c": np.zeros(1, np.float32)}))


def test_a_nan_is_named() -> None:
    with pytest.raises(InvalidInput, match="'b'"):
        WeightMap({"b": np.array([np.nan], np.float32)}).check_finite()


def test_equal_maps_give_equal_files_whatever_the_order_they_were_made_in(tmp_path: Path) -> None:
    turned = WeightMap(dict(reversed(list(weights().items()))))
    first = weights().save(tmp_path / "1", {"x": "1", "y": "2"})
    assert first == turned.save(tmp_path / "2", {"y": "2", "x": "1"})
    assert first.startswith("sha256:")


def test_a_file_tells_its_schema_and_metadata_without_its_arrays(tmp_path: Path) -> None:
    weights().save(tmp_path / "w", {"x": "1"})
    assert read_schema(tmp_path / "w") == weights().schema()
    assert read_metadata(tmp_path / "w") == {"x": "1"}
    again = WeightMap.load(tmp_path / "w")
    assert all(np.array_equal(again[name], array) for name, array in weights().items())


def test_a_file_is_laid_out_as_the_library_lays_it_out() -> None:
    """Any types, shapes, orders in memory and numbers of arrays: the bytes differ in nothing but the header's order."""
    random = np.random.default_rng(0)
    kinds = ["bool", "int8", "uint8", "int16", "float16", "int32", "float32", "float64", "int64"]
    for count in range(60):
        arrays = {}
        for _ in range(count % 9):
            shape, order = tuple(random.integers(0, 4, random.integers(0, 4))), random.choice(["C", "F"])
            array = (9 * random.normal(size=shape)).astype(random.choice(kinds), order=order)
            arrays[f"{random.integers(99)}.{'ab'[random.integers(2)]}"] = array
        ours, theirs = WeightMap(arrays).to_bytes(), save({n: np.asarray(a, order="C") for n, a in arrays.items()})
        header, data = _parted(theirs)
        assert _parted(ours) == ({**header, "__metadata__": {}}, data)


def _parted(file: bytes) -> tuple[dict[str, object], bytes]:
    size = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + size]), file[8 + size :]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\xff" * 64], ids=["empty", "zip", "noise"])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(CorruptData):
        WeightMap.load(tmp_path / "w")
    with pytest.raises(CorruptData):
        read_schema(tmp_path / "w")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    weights(1).save(tmp_path / "w")
    (tmp_path / "w.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        weights(2).save(tmp_path / "w")
    assert WeightMap.load(tmp_path / "w")["a"] == 1
