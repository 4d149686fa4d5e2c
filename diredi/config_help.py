"""What a configuration allows, read from its class: for `--help` and for the configuration reference alike."""

from __future__ import annotations

import shutil
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from diredi.errors import InvalidInput

_NAMES = {
    "str": "text",
    "SecretStr": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "Path": "path",
    "dict": "mapping",
}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("multiple_of", "multiple of"))


@dataclass(frozen=True)
class Option:
    """One field of a configuration, in words.

    Attributes:
        name: The name of the field.
        allowed: Its type and bounds, such as "integer, ≥ 1".
        default: Its default, or None where a value is required.
        text: Its description, on one line.
        group: The class of its own options, where the field is a group of options.
    """

    name: str
    allowed: str
    default: str | None
    text: str
    group: type[BaseModel] | None


def options(model: type[BaseModel], defaults: BaseModel | None = None) -> Iterator[Option]:
    """Yield the options of a configuration in the order of its class.

    Args:
        model: The class of the configuration, or of one group of its options.
        defaults: The value whose fields are the defaults; without it they are those of the class.
    """
    for name, field in model.model_fields.items():
        annotation = field.annotation
        group = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
        text = " ".join((field.description or "").split())
        default = None if field.is_required() else _written(default_of(field, name, defaults))
        yield Option(name, "group of options" if group else _allowed(field), default, text, group)


def default_of(field: FieldInfo, name: str, defaults: BaseModel | None) -> Any:  # noqa: ANN401  (any value of a field)
    """Return the default of a field: that of `defaults` where there is one, else that of its class."""
    return field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)


def help_text(model: type[BaseModel], path: Sequence[str] = ()) -> str:
    """Write the help of a service for a terminal.

    Args:
        model: The class of its configuration, with `program` and `env_prefix`.
        path: What follows `--help` on the command line: nothing for all options, or the name of one group.

    Raises:
        InvalidInput: There is no such group.
    """
    program, prefix = str(getattr(model, "program", "")), str(model.model_config.get("env_prefix", ""))
    dotted = path[0].removeprefix("--").replace("-", "_") if path else ""
    shown = list(options(*_group(model, dotted)))
    start = f"{dotted}." if dotted else ""
    width = min(shutil.get_terminal_size().columns, 110)
    example = f"{start}{shown[0].name}" if dotted else "state_dir"
    parts = [
        f"Usage: {program} [--NAME VALUE ...]\n       {program} --help [GROUP]",
        _wrapped(
            f"A value comes from the first of these that has it: the flag, such as {_flag(example)}; the environment,"
            f" such as {prefix}{example.replace('.', '__').upper()}; the YAML file that --config names; the default.",
            width,
        ),
        f"Options of the group {dotted}:" if dotted else "Options:",
        *(_entry(start, option, width) for option in shown),
    ]
    return "\n\n".join(parts)


def _entry(start: str, option: Option, width: int) -> str:
    flag = _flag(f"{start}{option.name}")
    if option.group:
        head, end = f"  {flag}.NAME", f"`--help {flag.removeprefix('--')}` lists these options."
    else:
        head = f"  {flag}  {option.allowed}"
        end = "Required." if option.default is None else f"Default: {option.default}."
    return f"{head}\n{_wrapped(f'{option.text} {end}', width, ' ' * 6)}"


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _group(model: type[BaseModel], dotted: str) -> tuple[type[BaseModel], BaseModel | None]:
    """Return the class of a group, and the value that holds its defaults there."""
    defaults: BaseModel | None = None
    for name in filter(None, dotted.split(".")):
        groups = {option.name: option.group for option in options(model, defaults) if option.group}
        found = groups.get(name)
        if found is None:
            there = f"use {', '.join(groups)}" if groups else "there is none here"
            raise InvalidInput(f"--help {dotted}: there is no group of options {name!r}: {there}")
        field = model.model_fields[name]
        defaults = None if field.is_required() else default_of(field, name, defaults)
        model = found
    return model, defaults


def _allowed(field: FieldInfo) -> str:
    """Return the type in words, with its bounds."""
    bounds = [
        f"{sign} {getattr(item, attribute)}"
        for item in field.metadata
        for attribute, sign in _BOUNDS
        if getattr(item, attribute, None) is not None
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:  # noqa: ANN401  (any annotation of a field)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(choice) for choice in arguments)
    if origin is types.UnionType or str(origin) == "typing.Union":
        return " or ".join("none" if argument is types.NoneType else _type(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is not None and origin is not dict:
        return _type(arguments[0])  # Annotated
    return _NAMES.get(getattr(origin or annotation, "__name__", ""), "value")


def _written(value: Any) -> str:  # noqa: ANN401  (any value of a field)
    """Return a default as it is written in YAML."""
    if isinstance(value, BaseModel):
        return str(value.model_dump(exclude_defaults=True, mode="json") or "as listed")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(str(item) for item in value)}]"
    return "none" if value is None else str(value) or "empty"
