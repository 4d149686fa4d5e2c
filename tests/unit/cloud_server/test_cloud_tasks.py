from __future__ import annotations

import pytest

from cloud_server.states import CLOUD_WORKS, State
from cloud_server.tasks import TaskKind, open_tasks, parsed
from diredi.errors import InvalidInput
from tests.unit.cloud_server.samples import cycle, figures


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
    (task,) = open_tasks([cycle(state)])
    assert (task.kind, task.id) == (kind, f"c1/{kind}")
    assert parsed(task.id) == ("c1", kind)


def test_while_the_cloud_works_or_all_is_well_the_site_has_nothing_to_do() -> None:
    assert not open_tasks([cycle(state) for state in (*CLOUD_WORKS, State.RELEASED)])
    assert not open_tasks([cycle(State.CANARY, site_after=figures(0.5))])


def test_a_task_is_another_one_once_it_is_approved() -> None:
    (asked,), (approved,) = open_tasks([cycle(State.OFFERED)]), open_tasks([cycle(State.OFFERED, approved=True)])
    assert asked.key != approved.key


@pytest.mark.parametrize("text", ["", "c1", "c1/", "/extract", "c1/dance"])
def test_an_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="task"):
        parsed(text)
