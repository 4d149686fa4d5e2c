"""One configuration a service: from flags, environment and a YAML file alike, in that order of precedence."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict

from diredi.errors import InvalidInput


class Config(BaseModel):
    """Base of the frozen parts of a configuration: an unknown key is an error, not a typo that does nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceConfig(BaseSettings):
    """Base of a service's configuration. Units are in the names; printed at start; never global.

    A value of a field `state_dir` comes from, first that has it: `--state-dir`, `<PREFIX>STATE_DIR` in the environment,
    `state_dir:` in the YAML file named by `--config` or `<PREFIX>CONFIG`, the default.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_nested_delimiter="__")

    program: ClassVar[str] = "diredi"

    @classmethod
    def from_command_line(
        cls, arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
    ) -> Self:
        """Raises InvalidInput that names the field, where it came from and what is allowed."""
        import os

        arguments = list(sys.argv[1:] if arguments is None else arguments)
        environment = os.environ if environment is None else environment
        file, rest = _pop_config_flag(arguments, environment.get(f"{cls.model_config['env_prefix']}CONFIG"))
        values = _read_yaml(Path(file)) if file else {}
        try:
            source = CliSettingsSource[Any](
                cls, cli_parse_args=rest, cli_prog_name=cls.program, cli_kebab_case=True, cli_hide_none_type=True
            )
            # Init arguments win over the environment in pydantic-settings, so the file must not be passed as such.
            settings = cls(_cli_settings_source=source, **_without_environment(cls, values, environment))  # type: ignore[call-arg]
        except ValidationError as error:
            raise InvalidInput(_explained(error)) from None
        return settings


def _pop_config_flag(arguments: list[str], default: str | None) -> tuple[str | None, list[str]]:
    rest: list[str] = []
    file = default
    items = iter(arguments)
    for item in items:
        if item == "--config":
            file = next(items, None)
            if file is None:
                raise InvalidInput("--config needs the path of a YAML file")
        elif item.startswith("--config="):
            file = item.removeprefix("--config=")
        else:
            rest.append(item)
    return file, rest


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise InvalidInput(f"configuration file {path} cannot be read ({error.strerror}): check --config") from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"configuration file {path} is not YAML ({error})") from None
    if not isinstance(values, dict):
        raise InvalidInput(f"configuration file {path} must hold `name: value` lines")
    return values


def _without_environment(
    cls: type[ServiceConfig], values: dict[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    prefix = str(cls.model_config["env_prefix"]).upper()
    names = {name.upper() for name in environment}
    return {k: v for k, v in values.items() if f"{prefix}{k.upper()}" not in names}


def _explained(error: ValidationError) -> str:
    parts = [f"{'.'.join(str(p) for p in e['loc']) or 'configuration'}: {e['msg']}" for e in error.errors()]
    return "configuration is not usable: " + "; ".join(parts)
