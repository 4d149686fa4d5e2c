"""What the site says about updates of this device: releases that it holds, and hours at which it may change over.

They are asked of the user domain again and again and kept on disk, so that they hold while it is away. A device that
has no user domain has no such rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict

from diredi.errors import DirediError
from diredi.rpc import convert
from diredi.rpc.client import Channel, call
from diredi.rpc.v1 import local_pb2 as pb
from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
from diredi.store.files import atomic_write, read_state


class UpdateWait(StrEnum):
    """Why a release is not installed now."""

    NONE = ""
    HELD = "held"
    WINDOW = "window"


class Rules(BaseModel):
    """What the site has said last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    held: frozenset[int] = frozenset()
    all_held: bool = False
    has_windows: bool = False
    windows: tuple[tuple[datetime, datetime], ...] = ()

    def wait_for(self, version: int, now: datetime) -> UpdateWait:
        """Return why a device waits with a release; NONE where it may change over now."""
        if self.all_held or version in self.held:
            return UpdateWait.HELD
        if self.has_windows and not any(begins <= now < ends for begins, ends in self.windows):
            return UpdateWait.WINDOW
        return UpdateWait.NONE


class SiteRules:
    """The rules of the site, as it has said them last. A release waits until the site was asked once.

    Attributes:
        on_change: Called when the rules are others, and when the site was asked first.
    """

    def __init__(self, path: Path, *, every_s: float, has_site: bool) -> None:
        """Read the rules of before.

        Args:
            path: Where they are kept.
            every_s: Seconds between two questions.
            has_site: Whether there is a user domain to be asked; without one there are no rules.
        """
        self.on_change: Callable[[], None] = _nothing
        self._path = path
        self._every_s = every_s
        self._asked = not has_site
        self._logged = ""
        stored = read_state(path, Rules.model_validate_json) if has_site else None
        self._rules = stored or Rules()

    def wait_for(self, version: int) -> UpdateWait:
        """Return why a release waits; NONE where it may be installed now."""
        if not self._asked:
            return UpdateWait.WINDOW
        return self._rules.wait_for(version, datetime.now(UTC))

    async def run(self, channel: Channel) -> None:
        """Ask the user domain for ever."""
        stub = LocalServiceStub(channel)
        while True:
            try:
                answer = await call(stub.GetUpdateRules, pb.GetUpdateRulesRequest(), deadline_s=5)
                rules = _rules_from(answer)
                if rules != self._rules:
                    await asyncio.to_thread(atomic_write, self._path, rules.model_dump_json())
                self._set(rules)
                self._logged = ""
            except DirediError as error:
                if str(error) != self._logged:
                    structlog.get_logger().warning("site_rules_not_fetched", error=str(error))
                self._logged = str(error)
                self._set(self._rules)
            await asyncio.sleep(self._every_s)

    def _set(self, rules: Rules) -> None:
        changed = rules != self._rules or not self._asked
        self._rules, self._asked = rules, True
        if changed:
            self.on_change()


def _nothing() -> None:
    """Stand in until somebody wants to hear of changes."""


def _rules_from(answer: pb.GetUpdateRulesResponse) -> Rules:
    return Rules(
        held=frozenset(answer.held),
        all_held=answer.all_held,
        has_windows=answer.has_windows,
        windows=tuple((convert.time_from(span.begins), convert.time_from(span.ends)) for span in answer.windows),
    )
