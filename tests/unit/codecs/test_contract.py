"""One contract for every registered codec; a new one is tested the moment it is registered."""

from __future__ import annotations

import hashlib
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from diredi.codecs import CODECS, codec_named, read_header, register
from diredi.codecs.container import MAGIC
from diredi.errors import CorruptData, InvalidInput
from diredi.store.weights import WeightMap

GOLDEN = Path(__file__).parent / "golden"
every_codec = pytest.mark.parametrize("name", sorted(CODECS))
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
arrays = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9), elements=floats),
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)),
)
maps = st.dictionaries(st.text(min_size=1, max_size=20), arrays, max_size=5).map(WeightMap)


def detector_like(seed: int = 0) -> WeightMap:
    rng = np.random.default_rng(seed)
    return WeightMap(
        {
            "model.0.conv.weight": rng.normal(0, 1e-3, (32, 16, 3, 3)).astype(np.float32),
            "model.0.bn.running_mean": rng.normal(0, 1, 32).astype(np.float32),
            "model.0.bn.num_batches_tracked": np.array(7, np.int64),
            "model.1.cv3.bias": rng.normal(0, 1, 5).astype(np.float32),
        }
    )


@every_codec
@settings(max_examples=60, deadline=None)
@given(weights=maps)
def test_what_is_decoded_has_the_same_schema_and_is_as_near_as_the_codec_says(name: str, weights: WeightMap) -> None:
    codec = codec_named(name)
    again = codec.decode(codec.encode(weights))
    assert again.schema() == weights.schema()
    for key, array in weights.items():
        if array.dtype == np.float32:
            error = np.abs(again[key].astype(np.float64) - array.astype(np.float64))
            assert (error <= codec.largest_error(array)).all(), key
        else:
            assert np.array_equal(again[key], array)


@every_codec
def test_equal_weights_give_equal_bytes(name: str) -> None:
    codec = codec_named(name)
    turned = WeightMap(dict(reversed(list(detector_like().items()))))
    assert codec.encode(detector_like(), {"a": "1", "b": "2"}) == codec.encode(turned, {"b": "2", "a": "1"})


@every_codec
def test_what_is_lost_is_noise_far_below_the_weights(name: str) -> None:
    codec, weights = codec_named(name), detector_like()
    lost = codec.decode(codec.encode(weights)) - weights
    for key, array in lost.items():
        if array.dtype == np.float32:
            assert np.linalg.norm(array) <= 0.04 * np.linalg.norm(weights[key]), key  # 28 dB


@every_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_by_name(name: str, bad: float) -> None:
    with pytest.raises(InvalidInput, match="'w'"):
        codec_named(name).encode(WeightMap({"w": np.array([[1, bad]], np.float32)}))


@every_codec
def test_a_type_that_weights_do_not_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="complex64"):
        codec_named(name).encode(WeightMap({"w": np.zeros(2, np.complex64)}))


@every_codec
def test_every_truncation_is_noticed(name: str) -> None:
    data = codec_named(name).encode(WeightMap({"w": np.ones((3, 9), np.float32)}))
    for length in range(len(data)):
        with pytest.raises(CorruptData):
            codec_named(name).decode(data[:length])


@every_codec
def test_every_changed_byte_is_noticed(name: str) -> None:
    data = codec_named(name).encode(WeightMap({"w": np.ones((3, 9), np.float32)}))
    for at in range(len(data)):
        with pytest.raises(CorruptData):
            codec_named(name).decode(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])


@every_codec
def test_a_file_of_another_codec_is_refused_and_both_are_named(name: str) -> None:
    other = next(n for n in CODECS if n != name)
    with pytest.raises(CorruptData, match=f"{other}.*{name}"):
        codec_named(name).decode(codec_named(other).encode(detector_like()))


@every_codec
def test_a_file_that_unpacks_to_too_much_is_refused(name: str) -> None:
    data = codec_named(name).encode(WeightMap({"w": np.zeros((1000, 1000), np.float32)}))
    assert len(data) < 10_000
    with pytest.raises(CorruptData, match="unpack"):
        codec_named(name).decode(data, max_bytes=1_000_000)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.bin")), ids=lambda p: p.stem)
def test_released_files_are_read_for_ever(path: Path) -> None:
    header = read_header(path.read_bytes())
    codec = codec_named(header.codec)
    again = codec.decode(path.read_bytes())
    for key, array in detector_like().items():
        assert np.allclose(again[key], array, atol=float(np.max(codec.largest_error(array)))), key
    assert header.metadata == {"made": "for ever"}


@every_codec
def test_every_codec_has_a_golden_file(name: str) -> None:
    assert name in {read_header(path.read_bytes()).codec for path in GOLDEN.glob("*.bin")}


def forged(header: str, payload: bytes) -> bytes:
    """A file with a right digest around whatever is in it: what somebody who means harm would send."""
    body = len(header).to_bytes(4, "little") + header.encode() + payload
    return MAGIC + hashlib.sha256(body).digest() + body


def described(shape: str, stored: str = "raw", dtype: str = "float32", name: str = "w") -> str:
    entry = f'{{"name":"{name}","dtype":"{dtype}","shape":{shape},"stored":"{stored}"}}'
    return f'{{"codec":"fp32-zstd","arrays":[{entry}],"metadata":{{}}}}'


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ("not json", b""),
        ("[]", b""),
        (described("[-1]"), zstandard.compress(b"")),
        (described("[99999999999999]"), zstandard.compress(b"")),
        (described("[1000000,1000000]"), zstandard.compress(b"")),
        (described("[2]", dtype="object"), zstandard.compress(b"12345678")),
        (described("[2]", stored="pickle"), zstandard.compress(b"12345678")),
        (described("[]", stored="int8-row"), zstandard.compress(b"12345")),
        (described("[1]", stored="float16", dtype="int64"), zstandard.compress(b"12")),
        (described("[1]"), zstandard.compress(b"\0" * 50_000_000)),
        (described("[2]"), zstandard.compress(b"1234")),
        (described("[1]"), b"not zstd"),
        (described("[1]"), zstandard.compress(b"1234") + b"and more"),
    ],
    ids=["text", "list", "negative", "huge", "overflow", "object", "pickle", "scalar-rows", "int-as-float",
         "bomb", "short", "frame", "trailing"],
)  # fmt: skip
def test_a_forged_file_with_a_right_digest_is_refused(header: str, payload: bytes) -> None:
    with pytest.raises(CorruptData):
        codec_named("fp32-zstd").decode(forged(header, payload))


def test_a_frame_that_hides_its_size_is_refused() -> None:
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(b"1234")
    with pytest.raises(CorruptData):
        codec_named("fp32-zstd").decode(forged(described("[1]"), hidden))


def test_a_scale_that_is_no_number_is_refused() -> None:
    header = described("[1,8]", stored="int8-row").replace("fp32-zstd", "int8-row-zstd")
    with pytest.raises(CorruptData, match="scale"):
        codec_named("int8-row-zstd").decode(
            forged(header, zstandard.compress(np.array([np.nan], "<f4").tobytes() + b"\1" * 8))
        )


def test_a_name_is_registered_once() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        register(CODECS["fp32-zstd"])


def test_an_unknown_codec_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"'gzip'.*fp32-zstd, int8-row-zstd"):
        codec_named("gzip")


def test_int8_is_a_sixth_of_a_convolution() -> None:
    rng = np.random.default_rng(0)
    weights = WeightMap({"w": rng.normal(0, 1e-3, (256, 128, 3, 3)).astype(np.float32)})
    assert len(codec_named("int8-row-zstd").encode(weights)) < weights.fp32_bytes / 6
