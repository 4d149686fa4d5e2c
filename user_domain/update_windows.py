"""Hours of the week at which the devices of a site may change over to another release."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

AHEAD: Final = timedelta(days=28)
"""For so long the windows are told ahead, so that a device can obey them while its site's service is away."""
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)")


@dataclass(frozen=True)
class Window:
    """Hours of some days of the week at which devices may change over; past midnight where the end is not later."""

    days: frozenset[int]
    begins: time
    ends: time

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read a window such as `22:00-05:00` or `mon-fri 22:00-05:00`.

        Raises:
            ValueError: It is none; the message says how to write one.
        """
        match = _WINDOW.fullmatch(text.strip().lower())
        try:
            if match is None:
                raise ValueError
            first = _DAYS.index(match[1]) if match[1] else 0
            last = _DAYS.index(match[2] or match[1]) if match[1] else 6
            count = (last - first) % 7 + 1
            begins, ends = time(int(match[3]), int(match[4])), time(int(match[5]), int(match[6]))
        except ValueError:
            raise ValueError(f"{text!r} is no window: write 22:00-05:00, or mon-fri 22:00-05:00") from None
        return cls(frozenset((first + day) % 7 for day in range(count)), begins, ends)

    def spans(self, zone: ZoneInfo, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield when the window is open, from the one that is open now to `AHEAD`, as moments."""
        today = now.astimezone(zone).date() - timedelta(days=1)
        for ahead in range(AHEAD.days + 2):
            day = today + timedelta(days=ahead)
            if day.weekday() in self.days:
                last = day + timedelta(days=int(self.ends <= self.begins))
                begins = datetime.combine(day, self.begins, zone)
                ends = datetime.combine(last, self.ends, zone)
                if ends.timestamp() > now.timestamp():
                    yield begins, ends
