"""A hook of mkdocs: every name that `diredi` exports has a docstring and an entry in the API reference.

What is missing is a warning, which the strict build of `make docs` turns into an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).resolve().parent.parent
API_PAGE = "reference/api.html"
_log = logging.getLogger("mkdocs.hooks.public_names")


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of every exported name that the built reference does not show or that the code does not explain.

    Args:
        config: The configuration of the site that has just been built.
    """
    page = (Path(config.site_dir) / API_PAGE).read_text(encoding="utf-8")
    package = griffe.load("diredi", search_paths=[ROOT], resolve_aliases=True)
    for name in exported(package):
        if f'id="diredi.{name}"' not in page:
            _log.warning("diredi.%s is exported and missing in docs/reference/api.md: add '::: diredi.%s'", name, name)
        for path in undocumented(package, name):
            _log.warning("%s is public and has no docstring", path)


def exported(package: griffe.Object | griffe.Alias) -> list[str]:
    """Return the names in `__all__` of a package, without those of Python itself such as `__version__`.

    Args:
        package: The package as griffe has read it.
    """
    return sorted(str(name) for name in package.exports or () if not str(name).startswith("__"))


def undocumented(package: griffe.Object | griffe.Alias, name: str) -> Iterator[str]:
    """Yield the dotted paths of what one exported name makes public without a docstring.

    Args:
        package: The package as griffe has read it.
        name: A name that the package exports: a class, a function or a constant.
    """
    found = package[name]
    if not found.has_docstring:
        yield f"diredi.{name}"
    if found.is_class:
        for member in found.members.values():
            if member.is_function and member.is_public and not member.name.startswith("_") and not member.has_docstring:
                yield f"diredi.{name}.{member.name}"
