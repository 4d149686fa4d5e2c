from __future__ import annotations

import pytest

from cloud_server.states import CLOUD_WORKS, State
from cloud_server.tasks import TaskKind, open_tasks, parse_task_id
from diredi.errors import InvalidInput
from tests.unit.cloud_server.samples import cycle, metrics, part


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (State.REQUESTED, TaskKind.EXTRACT),
        (State.OFFERED, TaskKind.EXTRACT),
        (State.EXTRACTING, TaskKind.EXTRACT),
        (State.CANARY, TaskKind.VALIDATE),
        (State.DECLINED, TaskKind.CANCEL),
        (State.FAILED, TaskKind.CANCEL),
        (State.ROLLED_BACK, TaskKind.CANCEL),
    ],
)
def test_what_a_site_has_to_do_follows_from_the_state(state: State, kind: TaskKind) -> None:
    (task,) = open_tasks([cycle(state)], "site-1")
    assert (task.kind, task.id) == (kind, f"c1/{kind}")
    assert parse_task_id(task.id) == ("c1", kind)


def test_while_the_cloud_works_or_all_is_well_the_site_has_nothing_to_do() -> None:
    assert not open_tasks([cycle(state) for state in (*CLOUD_WORKS, State.RELEASED)], "site-1")
    validated = part(state=State.UPLOADED, after=metrics(0.5))
    assert not open_tasks([cycle(State.CANARY, parts=[validated])], "site-1")


def test_a_task_is_another_one_once_it_is_approved() -> None:
    yes = part(state=State.OFFERED, approved=True)
    (asked,) = open_tasks([cycle(State.OFFERED)], "site-1")
    (approved,) = open_tasks([cycle(State.OFFERED, parts=[yes])], "site-1")
    assert asked.key != approved.key


def test_each_site_of_a_cycle_has_tasks_of_its_own() -> None:
    parts = [
        part("a", State.EXTRACTING),
        part("b", State.UPLOADED),
        part("c", State.DECLINED),
    ]
    both = cycle(State.EXTRACTING, parts=parts)
    kinds = {site: [task.kind for task in open_tasks([both], site)] for site in "abc"}
    assert kinds == {"a": [TaskKind.EXTRACT], "b": [], "c": [TaskKind.CANCEL]}
    parts[0] = part("a", State.UPLOADED, after=metrics(0.5))
    in_canary = cycle(State.CANARY, parts=parts)
    kinds = {site: [task.kind for task in open_tasks([in_canary], site)] for site in "abc"}
    assert kinds == {"a": [], "b": [TaskKind.VALIDATE], "c": [TaskKind.CANCEL]}


@pytest.mark.parametrize("text", ["", "c1", "c1/", "/extract", "c1/dance"])
def test_an_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="task"):
        parse_task_id(text)
