"""When the devices of this site may change over to a new release, and which releases the site holds.

The windows stand in the site's configuration, in the time of the zone that it names. What is held stands in the site's
journal of consent, signed with its own key. The devices ask for both and obey; the cloud is not asked, and hears from
the devices that they wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from diredi.consent import ConsentEntry, Event, SignedEntry, sign_entry
from diredi.errors import InvalidInput
from user_domain.consent import NO_CYCLE, ConsentJournal
from user_domain.update_windows import Window

ALL: Final = 0
"""In place of a release's number: every release."""


@dataclass(frozen=True)
class UpdateRules:
    """What the site says about updates of its devices."""

    journal: ConsentJournal
    windows: Sequence[str]
    zone: str

    def held(self) -> set[int]:
        """Return the releases that the site holds; `ALL` among them: every one."""
        held = set[int]()
        for entry in self.journal.find(NO_CYCLE, "held", "unheld"):
            release = entry.what.get("release")
            if isinstance(release, int):
                held.add(release) if entry.event == "held" else held.discard(release)
        return held

    def decide(self, signed: SignedEntry) -> ConsentEntry:
        """Record that the site holds a release, or does not any more.

        Raises:
            Refused: Another key has signed it, or it is of another site.
            InvalidInput: It is no such entry.
        """
        entry = self.journal.check(signed)
        release = entry.what.get("release")
        if entry.event not in {"held", "unheld"} or entry.cycle_id != NO_CYCLE:
            raise InvalidInput(f"{entry.event!r} is no word on a release: hold it or unhold it")
        if not isinstance(release, int) or release < 0:
            raise InvalidInput("a release is held by its number, from 1: name it as `diredi device list` shows it")
        if (release in self.held()) == (entry.event == "held"):
            return entry
        return self.journal.add(signed)

    def decide_for(self, person: str, event: Event, release: int) -> ConsentEntry:
        """Sign and record what a person says who has proved to hold this site's key; raises as `decide` does."""
        credentials = self.journal.credentials
        entry = ConsentEntry(
            event=event, site=credentials.identity.name, cycle_id=NO_CYCLE, what={"release": release}, by=person[:200],
            at=datetime.now(UTC),
        )  # fmt: skip
        return self.decide(sign_entry(entry, credentials))

    def spans(self, now: datetime) -> list[tuple[datetime, datetime]]:
        """Return when devices may change over within the next weeks, in order."""
        windows = [Window.parse(text) for text in self.windows]
        return sorted(span for window in windows for span in window.spans(ZoneInfo(self.zone), now))

    @property
    def words(self) -> str:
        """The windows as they were written, with their time zone; empty where there are none."""
        return f"{', '.join(self.windows)} ({self.zone})" if self.windows else ""
