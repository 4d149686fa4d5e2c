from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from diredi.config import Config, ServiceConfig
from diredi.errors import InvalidInput


class Group(Config):
    colour: Literal["red", "green"] = "red"
    """The colour of it."""


class Settings(ServiceConfig):
    model_config = SettingsConfigDict(env_prefix="DIREDI_TRIAL_")
    program = "trial"

    listen: str = "127.0.0.1:0"
    """The host:port to listen on."""
    deadline_s: float = Field(default=10, gt=0)
    """How long to wait, in seconds."""
    near: Group = Group(colour="green")
    """What is near."""
    far: Group = Group()
    """What is far."""


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text("listen: from-file\ndeadline_s: 3\n")
    assert Settings.from_command_line(["--config", str(file)]).listen == "from-file"
    monkeypatch.setenv("DIREDI_TRIAL_LISTEN", "from-environment")
    settings = Settings.from_command_line(["--config", str(file)])
    assert (settings.listen, settings.deadline_s) == ("from-environment", 3)
    assert Settings.from_command_line(["--config", str(file), "--listen", "from-flag"]).listen == "from-flag"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deadline_s: 0", "deadline_s"),
        ("dead_line: 3", "dead_line"),
        ("- a list", "must hold"),
        ("listen: [", "is not YAML"),
    ],
)
def test_a_bad_file_is_refused_with_the_field_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=said):
        Settings.from_command_line([f"--config={file}"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"absent\.yaml cannot be read"):
        Settings.from_command_line(["--config", str(tmp_path / "absent.yaml")])


def test_a_nested_value_of_the_environment_leaves_the_file_its_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text("near: {colour: red}\nfar: {colour: green}\n")
    monkeypatch.setenv("DIREDI_TRIAL_CONFIG", str(file))
    monkeypatch.setenv("DIREDI_TRIAL_FAR__COLOUR", "red")
    settings = Settings.from_command_line(["--listen=x"])
    assert (settings.near.colour, settings.far.colour, settings.listen) == ("red", "red", "x")


@pytest.mark.parametrize("arguments", [["--nowhere", "3"], ["--listen"], ["stray"]])
def test_a_wrong_flag_is_told_in_one_sentence_with_where_to_look(arguments: list[str]) -> None:
    with pytest.raises(InvalidInput, match="trial --help") as error:
        Settings.from_command_line(arguments)
    assert len(str(error.value)) < 120


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        Settings.from_command_line(arguments)
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_says_of_every_option_what_it_is_and_what_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys, "--help")
    assert "--deadline-s number, > 0 How long to wait, in seconds. Default: 10." in said
    assert "DIREDI_TRIAL_STATE_DIR" in said
    assert "--near.NAME What is near. `--help near` lists these options." in said


def test_help_of_a_group_has_the_defaults_of_that_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--near.colour red | green The colour of it. Default: green." in help_of(capsys, "--help", "near")
    assert "--far.colour red | green The colour of it. Default: red." in help_of(capsys, "-h", "--far")


def test_help_of_no_group_names_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInput, match="'middle': use near, far"):
        Settings.from_command_line(["--help", "middle"])


def test_help_fits_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        Settings.from_command_line(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_help_of_which_a_reader_takes_only_the_first_lines_ends_in_silence() -> None:
    """The reading end is closed before the program writes, as by `--help | head` on a slow machine."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        program = [sys.executable, "-m", "user_domain", "--help"]
        done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
