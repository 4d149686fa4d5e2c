from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from diredi.config import ServiceConfig
from diredi.errors import InvalidInput


class Settings(ServiceConfig):
    model_config = SettingsConfigDict(env_prefix="DIREDI_TRIAL_")
    program = "trial"

    listen: str = "127.0.0.1:0"
    deadline_s: float = Field(default=10, gt=0)


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
