"""Pure rules on which sites of a cycle are not waited for any longer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cloud_server.entities import Part
from cloud_server.states import BEFORE_UPLOAD, State


def find_overdue(
    parts: Sequence[Part], now: datetime, progress_deadline: timedelta, straggler_deadline: timedelta
) -> list[Part]:
    """Return the parts of the sites that have made no progress for too long before their upload.

    Each report of progress begins the time anew, so a site that is only slow is never overdue.

    Args:
        parts: All parts of the cycle.
        now: The current time.
        progress_deadline: How long a site may make no progress.
        straggler_deadline: The same while another site has uploaded its gap and has waited as long.
    """
    uploaded = [part.progressed_at for part in parts if part.state is State.UPLOADED]

    def is_overdue(part: Part) -> bool:
        delays_others = bool(uploaded) and now - max(part.progressed_at, min(uploaded)) > straggler_deadline
        return delays_others or now - part.progressed_at > progress_deadline

    return [part for part in parts if part.state in BEFORE_UPLOAD and is_overdue(part)]
