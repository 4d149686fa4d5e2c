"""The exit codes in the help are those of the errors, and an error is one sentence without a traceback."""

import re

import pytest

from diredi import errors
from diredi_cli.main import EXIT_CODES, run


def test_every_exit_code_is_in_the_help():
    documented = {int(code) for code in re.findall(r"(\d+) \w", EXIT_CODES)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DirediError)]
    assert documented == {kind.exit_code for kind in kinds} | {0, 130}


def one_sentence(said: str) -> str:
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["cyle"], "`diredi --help`"),
        (["cycle", "start"], "`diredi cycle start --help`"),
        (["cycle", "list", "--limit", "0"], "`diredi cycle list --help`"),
        (["model", "list", "--kind", "uncle"], "`diredi model list --help`"),
    ],
)
def test_misuse_is_one_sentence_that_names_the_help(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
):
    assert run(arguments) == 2
    assert hint in one_sentence(capsys.readouterr().err)


def test_a_missing_identity_names_the_file_and_the_remedy(capsys: pytest.CaptureFixture[str]):
    assert run(["cycle", "list", "--identity", "/nowhere"]) == 2
    said = one_sentence(capsys.readouterr().err)
    assert "/nowhere/ca.pem" in said and "diredi pki issue" in said


def test_a_missing_file_is_told_as_such(capsys: pytest.CaptureFixture[str]):
    assert run(["gap", "inspect", "/nowhere/gap.bin"]) == 4
    assert "/nowhere/gap.bin: No such file" in one_sentence(capsys.readouterr().err)


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]):
    assert run(["--debug", "gap", "inspect", "/nowhere/gap.bin"]) == 4
    said = capsys.readouterr().err
    assert "Traceback" in said and said.strip().splitlines()[-1].startswith("error: ")


def test_help_without_arguments_is_misuse_with_help(capsys: pytest.CaptureFixture[str]):
    assert run([]) == 2
    said = capsys.readouterr()
    assert "Usage" in said.out + said.err and "error:" not in said.err
