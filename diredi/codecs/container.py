"""The file around encoded arrays: a magic number, a digest, a small header that is checked first, one zstd frame.

    8 bytes   "DIREDIW" and the format's version, 1
    32 bytes  SHA-256 of everything after it: a damaged file is told from a strange one before it is parsed
    4 bytes   length of the header, little-endian
    header    JSON: codec, arrays (name, type, shape, how it is stored), metadata
    payload   one zstd frame: the stored arrays one after the other, in the order of the header

The header says how many bytes the payload must unpack to, so that a small file which claims to be, or turns out to be,
a large one is refused before memory is taken for it. Nothing here executes what it reads.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Literal

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diredi.errors import CorruptData

MAGIC = b"DIREDIW\x01"
_PREFIX = len(MAGIC) + 32 + 4
_MAX_HEADER_BYTES = 8 * 2**20
_MAX_WINDOW_BYTES = 2**27
_ITEM_BYTES = {"float16": 2, "float32": 4, "float64": 8, "int8": 1, "int32": 4, "int64": 8, "uint8": 1, "bool": 1}

DType = Literal["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool"]
Storage = Literal["raw", "float16", "int8-row"]


class ArrayHeader(BaseModel):
    """One array: what it is, and in which of three ways it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=512)]
    dtype: DType
    shape: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**40)], ...], Field(max_length=8)]
    stored: Storage

    @model_validator(mode="after")
    def _storage_fits(self) -> ArrayHeader:
        if self.stored != "raw" and self.dtype != "float32":
            raise ValueError(f"{self.dtype} cannot be stored as {self.stored}")
        if self.stored == "int8-row" and not self.shape:
            raise ValueError("an array without rows has no scale for each row")
        return self

    @property
    def size(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)

    @property
    def decoded_bytes(self) -> int:
        """Return the size of the decoded array in bytes."""
        return self.size * _ITEM_BYTES[self.dtype]

    @property
    def stored_bytes(self) -> int:
        """Return the size of the stored array in bytes."""
        if self.stored == "int8-row":
            return self.size + 4 * self.shape[0]
        return self.size * _ITEM_BYTES[self.dtype if self.stored == "raw" else "float16"]


class Header(BaseModel):
    """What an encoded file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Annotated[str, Field(min_length=1, max_length=64)]
    arrays: Annotated[list[ArrayHeader], Field(max_length=100_000)]
    metadata: dict[str, str] = {}

    @model_validator(mode="after")
    def _names_differ(self) -> Header:
        if len({a.name for a in self.arrays}) != len(self.arrays):
            raise ValueError("an array stands twice")
        return self

    @property
    def decoded_bytes(self) -> int:
        """Return the size of all decoded arrays in bytes."""
        return sum(a.decoded_bytes for a in self.arrays)

    @property
    def stored_bytes(self) -> int:
        """Return the size of all stored arrays in bytes."""
        return sum(a.stored_bytes for a in self.arrays)


def pack(codec: str, arrays: list[ArrayHeader], payload: bytes, metadata: Mapping[str, str] | None) -> bytes:
    """Return the file of encoded arrays.

    Args:
        codec: Name of the codec.
        arrays: What each array is and how it is stored.
        payload: The stored arrays, one after the other.
        metadata: Texts to store beside them.
    """
    header = Header(codec=codec, arrays=arrays, metadata=dict(sorted((metadata or {}).items())))
    text = json.dumps(header.model_dump(), sort_keys=True, separators=(",", ":")).encode()
    body = len(text).to_bytes(4, "little") + text + zstandard.ZstdCompressor(level=6).compress(payload)
    return MAGIC + hashlib.sha256(body).digest() + body


def read_header(data: bytes) -> Header:
    """Return the header of a complete file.

    Raises:
        CorruptData: The file is damaged or not of this format.
    """
    return _split(data)[0]


def unpack(data: bytes, codec: str, max_bytes: int) -> tuple[Header, bytes]:
    """Return header and unpacked payload of a file.

    Args:
        data: The complete file.
        codec: The codec that must have written it.
        max_bytes: The most bytes that the arrays may take.

    Raises:
        CorruptData: The file is damaged, too large, or of another codec.
    """
    header, frame = _split(data)
    if header.codec != codec:
        raise CorruptData(f"the weights are written in codec {header.codec!r}, not {codec!r}: name the one they are in")
    if max(header.decoded_bytes, header.stored_bytes) > max_bytes:
        raise CorruptData(f"the weights would unpack to {header.decoded_bytes} bytes; at most {max_bytes} are taken")
    return header, _decompressed(frame, header.stored_bytes)


def _split(data: bytes) -> tuple[Header, bytes]:
    if len(data) < _PREFIX or data[: len(MAGIC)] != MAGIC:
        raise CorruptData("these are not encoded weights: the file does not begin as one")
    if hashlib.sha256(data[len(MAGIC) + 32 :]).digest() != data[len(MAGIC) : len(MAGIC) + 32]:
        raise CorruptData("the encoded weights are damaged (their digest is another): transfer them again")
    length = int.from_bytes(data[_PREFIX - 4 : _PREFIX], "little")
    if length > min(_MAX_HEADER_BYTES, len(data) - _PREFIX):
        raise CorruptData("the header of the encoded weights is longer than it may be")
    try:
        return Header.model_validate_json(data[_PREFIX : _PREFIX + length]), data[_PREFIX + length :]
    except ValidationError as error:
        first = error.errors()[0]
        raise CorruptData(f"the header of the encoded weights is not valid ({first['loc']}: {first['msg']})") from None


def _decompressed(frame: bytes, expected: int) -> bytes:
    try:
        said = zstandard.get_frame_parameters(frame)
        if said.content_size != expected or said.window_size > max(_MAX_WINDOW_BYTES, expected):
            raise CorruptData(
                f"the payload says that it unpacks to {said.content_size} bytes; the header says {expected}"
            )
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptData(
            f"the payload of the encoded weights does not unpack ({error}): transfer them again"
        ) from None
