"""Says what a file is that was named as a model and is none; reads a few bytes and interprets nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path

_LFS = b"version https://git-lfs"
_PAGE = (b"<!doctype", b"<html", b"<?xml")
_ZIP, _PICKLE, _GZIP = b"PK\x03\x04", b"\x80", b"\x1f\x8b"
_LOOKED_AT = 512


def explain(path: Path) -> str:
    """Say what a file is, and what to do, where its content shows that it holds no model that can be read.

    Args:
        path: A file or folder that exists.

    Returns:
        The rest of a sentence whose subject is the path; empty if nothing is known against the file.
    """
    if path.is_dir():
        return "is a folder: name the file of weights in it"
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    if not start:
        return "is empty: copy or download it again"
    if start[8:9] == b"{":  # behind the length of the header, whose bytes may be any
        misnamed = path.suffix in (".pt", ".pth")
        return "is a safetensors file: give it a name that ends with .safetensors" if misnamed else ""
    if start.startswith(_LFS):
        return "is a pointer of Git LFS and not the weights themselves: run `git lfs pull` where it came from"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        return "is a web page and not weights: open its address in a browser and download the file itself"
    if start.startswith(_GZIP):
        return "is compressed: unpack it first"
    if start.startswith(_PICKLE):
        return "is a pickle that cannot be read without running it: open it with its own program and save it anew"
    if start.startswith(_ZIP):
        return _explain_archive(path)
    return ""


def _explain_archive(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "is cut short: copy or download it again"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name for name in names):
        return "is an exported TorchScript model, which can only predict: name the .pt that it was exported from"
    if not any(name.endswith("/data.pkl") for name in names):
        return "is an archive without a model in it: unpack it and name the file of weights"
    return ""
