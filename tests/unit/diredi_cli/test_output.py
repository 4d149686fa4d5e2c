from datetime import UTC, datetime, timedelta

import pytest

from diredi.errors import InvalidInput
from diredi.text import ago_text, bytes_text, percent
from diredi_cli.main import run
from diredi_cli.options import parse_options
from diredi_cli.output import emit, facts, note, progress, seconds_text, table


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (2048, "2.00 KiB"), (15 * 2**20, "15.0 MiB"), (3 * 2**30, "3.00 GiB")],
)
def test_bytes_are_told_in_the_unit_that_fits(count: int, text: str):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (75.3, "1 min 15 s"), (3600, "60 min 00 s")]
)
def test_seconds_are_told_in_minutes_when_there_are_some(seconds: float, text: str):
    assert seconds_text(seconds) == text


def test_a_moment_is_told_by_its_age():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert ago_text(None) == "never"
    assert ago_text(now - timedelta(seconds=12), now) == "12 s ago"
    assert ago_text(now - timedelta(hours=5), now) == "5 h ago"
    assert ago_text(now + timedelta(seconds=3), now) == "0 s ago"  # another machine's clock may be ahead


def test_percent_is_in_points():
    assert percent(0.1234) == "12.3"


def test_cells_are_text_and_never_markup():
    cells = list(table(("name",), [("[red]x[/red]",)]).columns[0].cells)
    assert str(cells[0]) == "[red]x[/red]"


def test_options_become_nested_values_of_yaml():
    assert parse_options(["lam=0.5", "tutor.epochs=3", "tutor.seed=1", "layers=[head]", "student_gap=false"]) == {
        "lam": 0.5,
        "tutor": {"epochs": 3, "seed": 1},
        "layers": ["head"],
        "student_gap": False,
    }


@pytest.mark.parametrize("item", ["lam", "=1", ".a=1", "a..b=1", "lam=[1"])
def test_an_option_that_is_none_is_named(item: str):
    with pytest.raises(InvalidInput, match="option"):
        parse_options([item])


def test_an_option_inside_a_plain_value_is_refused():
    with pytest.raises(InvalidInput, match="value of its own"):
        parse_options(["tutor=1", "tutor.epochs=2"])


def test_without_a_terminal_progress_is_a_line_at_the_begin_and_end_of_each_step(capsys: pytest.CaptureFixture[str]):
    with progress() as bar:
        bar.step("Training", 0.1, "epoch 1")
        bar.step("Training", 0.9, "epoch 9")
        bar.step("Measuring")
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Training ...", "Training", "Measuring ...", "Measuring"]


def test_progress_says_nothing_beside_json(capsys: pytest.CaptureFixture[str]):
    with progress(as_json=True) as bar:
        bar.step("Training", 0.1, "epoch 1")
    assert capsys.readouterr() == ("", "")


EVIL = "\x1b[2J\x9b1Aall is well\u202e\x07"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_strangers_text_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    emit({"why": EVIL}, as_json, table(("why",), [(EVIL,)]), facts({EVIL: EVIL}))
    note(EVIL)
    with progress() as bar:
        bar.step(EVIL, 0.5, EVIL)
    run(["model", EVIL])
    out, err = capsys.readouterr()
    assert "all is well" in out
    assert "all is well" in err
    assert not [letter for letter in out + err if not letter.isprintable() and letter != "\n"]
