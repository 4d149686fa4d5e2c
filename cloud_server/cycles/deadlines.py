"""Which sites of a cycle are not waited for any longer. Pure rules on when each was last heard of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cloud_server.entities import Part
from cloud_server.states import BEFORE_UPLOAD, State


def find_overdue(parts: Sequence[Part], now: datetime, alone: timedelta, awaited: timedelta) -> list[Part]:
    """Those without progress for `alone`; for `awaited` where another site has uploaded and has waited as long.

    A site that is slow is not silent: each report of progress begins the time anew.
    """
    uploaded = [part.progressed_at for part in parts if part.state is State.UPLOADED]
    found = []
    for part in parts:
        if part.state not in BEFORE_UPLOAD:
            continue
        kept_waiting = bool(uploaded) and now - max(part.progressed_at, min(uploaded)) > awaited
        if kept_waiting or now - part.progressed_at > alone:
            found.append(part)
    return found
