import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", REFERENCE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def event_names(generate: ModuleType) -> set[str]:
    return {event.name for event in generate._events_module().events()}


def test_the_reference_of_commands_is_current(generate: ModuleType):
    assert (REFERENCE / "cli.md").read_text() == generate.command_page(), "run docs/reference/generate.py"


def test_the_reference_of_configuration_is_current(generate: ModuleType):
    assert (REFERENCE / "configuration.md").read_text() == generate.configuration_page(), (
        "run docs/reference/generate.py"
    )


@pytest.mark.slow
def test_the_reference_of_log_events_is_current(generate: ModuleType):
    assert (REFERENCE / "events.md").read_text() == generate.events_page(), "run docs/reference/generate.py"


def test_log_events_are_named_in_snake_case(event_names: set[str]):
    assert not {name for name in event_names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)}


def test_the_guides_name_only_events_that_there_are(event_names: set[str]):
    for page in (REFERENCE.parent / "how-to").glob("*.md"):
        told = set(re.findall(r"`([a-z_]+)` in the log|the log \(`([a-z_]+)`\)", page.read_text(encoding="utf-8")))
        assert {name for pair in told for name in pair if name} <= event_names, page.name


def test_every_command_says_what_it_does(generate: ModuleType):
    for section in generate.command_page().split("\n## ")[1:]:
        name, _, rest = section.partition("\n\n")
        assert len(rest.splitlines()[0]) > 15, f"{name} has no description"


def test_every_option_of_every_configuration_is_described(generate: ModuleType):
    for table in generate.configuration_page().split("\n## ")[1:]:
        for row in (line for line in table.splitlines() if line.startswith("| `")):
            name, *_, text = row.strip("| ").split(" | ")
            assert text.endswith((".", ")")) and " " in text, f"{table.splitlines()[0]}: {name} has no description"
