"""One configuration a service: from flags, environment and a YAML file alike, in that order of precedence.

The string below a field is its one description: `--help` prints it and `docs/reference/configuration.md` has it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from diredi.config_help import help_text
from diredi.errors import InvalidInput


class Config(BaseModel):
    """Base of the frozen parts of a configuration: an unknown key is an error, not a typo that does nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def of(cls, values: Self | Mapping[str, Any] | None) -> Self:
        """Return the configuration that `values` means.

        Args:
            values: Such a configuration, which is returned as it is; or the values that differ from the defaults, by
                name; or None, which means the defaults.

        Raises:
            InvalidInput: A name or a value cannot be used; the message names each.
        """
        if isinstance(values, cls):
            return values
        try:
            return cls.model_validate(dict(values or {}))
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in error.errors())
            raise InvalidInput(f"the {_words(cls.__name__)} is not usable: {found}") from None


def _words(name: str) -> str:
    """Return "train recipe" for "TrainRecipe"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


class ServiceConfig(BaseSettings):
    """Base of a service's configuration. Units are in the names; it is printed at the start and is never global.

    The value of a field `state_dir` is the first that there is of: the flag `--state-dir`, `<PREFIX>STATE_DIR` in the
    environment, `state_dir:` in the YAML file that `--config` or `<PREFIX>CONFIG` names, and the default.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        yaml_file_encoding="utf-8",
    )

    program: ClassVar[str] = "diredi"

    config: Path | None = None
    """YAML file with `name: value` lines, for whatever neither a flag nor the environment sets."""

    @classmethod
    def from_command_line(cls, arguments: Sequence[str] | None = None) -> Self:
        """Read the configuration of a service; with `--help`, print what there is and exit.

        Args:
            arguments: Flags and their values; by default those of this process.

        Returns:
            The validated configuration.

        Raises:
            InvalidInput: A value is missing or wrong. The message names the field and what is allowed.
        """
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        for flag in ("--help", "-h"):
            if flag in arguments:
                _print_help(help_text(cls, arguments[arguments.index(flag) + 1 :]))
                raise SystemExit(0)
        try:
            flags = CliSettingsSource[Any](
                cls, cli_parse_args=arguments, cli_kebab_case=True, cli_exit_on_error=False, cli_hide_none_type=True
            )
            return cls(_cli_settings_source=flags)  # type: ignore[call-arg]
        except ValidationError as error:
            raise InvalidInput(_explained(error)) from None
        except SettingsError as error:
            said = str(error).removeprefix("error parsing CLI: ")
            raise InvalidInput(f"{said}: see `{cls.program} --help`") from None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Validate the values of a configuration file that is still to be written, without flags and environment.

        Args:
            values: Names of fields and their values.

        Returns:
            The validated configuration.

        Raises:
            InvalidInput: A value is missing or wrong. The message names the field and what is allowed.
        """
        try:
            return cls(_env_prefix=f"{cls.program}:", **values)  # type: ignore[call-arg]  # no variable has such a name
        except ValidationError as error:
            raise InvalidInput(_explained(error)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the file that `config` names behind the flags and the environment, as pydantic-settings asks for it."""
        return init_settings, env_settings, _ConfigFile(settings_cls)


def _print_help(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _ConfigFile(YamlConfigSettingsSource):
    """The YAML file that a source before this one has named."""

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        if not path:
            return {}
        try:
            values = self._read_file(Path(path))
        except OSError as error:
            raise InvalidInput(f"configuration file {path} cannot be read ({error.strerror}): check --config") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidInput(f"configuration file {path} is not YAML ({error})") from None
        if not isinstance(values, dict):
            raise InvalidInput(f"configuration file {path} must hold `name: value` lines")
        return values


def _explained(error: ValidationError) -> str:
    parts = [f"{'.'.join(str(p) for p in e['loc']) or 'configuration'}: {e['msg']}" for e in error.errors()]
    return "configuration is not usable: " + "; ".join(parts)
