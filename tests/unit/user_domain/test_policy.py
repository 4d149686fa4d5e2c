"""What a site takes part in, whatever a cloud asks for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from diredi.knowledge.recipe import CycleRecipe
from user_domain.policy import Approval, Bounds, Policy
from user_domain.tasks import Task, TaskKind


def refusal(scope: str, *scopes: str, approval: Approval = "bounds") -> str:
    policy = Policy(approval, Bounds(scopes=scopes or None), "site-1")
    return policy.refuse(CycleRecipe(), Task("c/extract", TaskKind.EXTRACT, "c", scope=scope), [])


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("fleet", ()),
        ("group:north", ()),
        ("", ()),  # an older cloud does not say
        ("site:site-1", ("site",)),
        ("fleet", ("site", "fleet")),
        ("group:north", ("group:south", "group:north")),
        ("group:north", ("group",)),
    ],
)
def test_a_site_takes_part_in_cycles_of_the_scopes_that_it_names(scope: str, scopes: tuple[str, ...]) -> None:
    assert refusal(scope, *scopes) == ""


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("fleet", ("site",)),
        ("site:site-1", ("fleet",)),
        ("group:north", ("group:south", "fleet", "site")),
        ("group", ("group:north",)),
        ("", ("site", "fleet", "group")),
        ("planet", ("site", "fleet", "group")),
    ],
)
def test_a_site_refuses_other_scopes_and_names_its_own(scope: str, scopes: tuple[str, ...]) -> None:
    assert ", ".join(scopes) in refusal(scope, *scopes, approval="ask")
    assert "bounds.scopes" in refusal(scope, *scopes)


@pytest.mark.parametrize("scopes", [(), ("site",)])
def test_a_cycle_for_another_site_alone_is_refused(scopes: tuple[str, ...]) -> None:
    assert "this site is site-1" in refusal("site:site-2", *scopes)


@pytest.mark.parametrize("scopes", [(), ("planet",), ("group:",), ("site:site-1",), ("fleet ",)])
def test_a_scope_that_is_none_is_refused_at_the_start(scopes: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Bounds(scopes=scopes)
