"""How weights become bytes. A codec is one file beside this one and one line here. Needs no torch."""

from diredi.codecs.base import CODECS, MAX_DECODED_BYTES, Codec, codec_named, register
from diredi.codecs.container import Header, read_header
from diredi.codecs.packed import DENSE, INT8_ROW

register(DENSE)
register(INT8_ROW)

__all__ = ["CODECS", "MAX_DECODED_BYTES", "Codec", "Header", "codec_named", "read_header", "register"]
