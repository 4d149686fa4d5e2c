"""Cycles in the database. A state changes only together with a recorded transition."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from cloud_server.entities import Cycle, ExternalValidation, Json, Progress
from cloud_server.notifier import CYCLES, cycle_topic, site_topic
from cloud_server.states import DROPPED, ENDS, State, check_transition, joint_state
from cloud_server.store.log import Log
from cloud_server.store.schema import CycleRow, PartRow, TransitionRow
from diredi.errors import InvalidInput, NotFound


class Cycles:
    """All cycles, with their parts and their history."""

    def __init__(self, session: Session, changed_topics: set[str], log: Log) -> None:
        self._session = session
        self._log = log
        self._changed_topics = changed_topics

    def add(self, cycle: Cycle, actor: str, reason: str) -> Cycle:
        """Add a cycle with its first transition."""
        values = cycle.model_dump(mode="json", exclude={"history", "parts", "progressed_at", "created"})
        number = (self._session.scalar(select(func.max(CycleRow.number))) or 0) + 1
        row = CycleRow(**values, number=number, progressed_at=cycle.progressed_at, created=cycle.created)
        for position, part in enumerate(cycle.parts):
            values = part.model_dump(mode="json", exclude={"progressed_at"})
            row.parts.append(PartRow(position=position, **values, progressed_at=part.progressed_at))
        self._session.add(row)
        self._session.flush()
        self._record(row, cycle.state, cycle.created, actor, reason, {})
        return Cycle.model_validate(row)

    def get(self, cycle_id: str, visible: Collection[str] | None = None) -> Cycle:
        """Return a cycle.

        Args:
            cycle_id: Its id.
            visible: The scopes in which to look; None: all.

        Raises:
            NotFound: There is no such cycle in these scopes.
        """
        return Cycle.model_validate(self._row(cycle_id, visible))

    def find_by_request(self, request_id: str) -> Cycle | None:
        """Return the cycle that a request has started, or None."""
        row = self._session.scalar(select(CycleRow).where(CycleRow.request_id == request_id))
        return None if row is None else Cycle.model_validate(row)

    def of_rebases(self, versions: Collection[int]) -> list[Cycle]:
        """Return the cycles that rebase one of these releases, newest first."""
        query = select(CycleRow).where(CycleRow.rebases.in_(versions)).order_by(CycleRow.number.desc())
        return [Cycle.model_validate(row) for row in self._session.scalars(query)]

    def recent(
        self, site: str = "", limit: int = 100, visible: Collection[str] | None = None, after: str = ""
    ) -> list[Cycle]:
        """Return cycles, newest first.

        Args:
            site: Only those that this site takes or took part in; empty: all.
            limit: At most so many.
            visible: Only those of these scopes; None: of all.
            after: Only those that are older than the cycle of this id; empty: all.

        Raises:
            InvalidInput: There is no cycle of the id `after`.
        """
        query = select(CycleRow).order_by(CycleRow.number.desc()).limit(limit)
        if after:
            last = self._session.get(CycleRow, after)
            if last is None:
                raise InvalidInput("page_token is not one: send the next_page_token of the page before")
            query = query.where(CycleRow.number < last.number)
        if site:
            query = query.where(CycleRow.parts.any(PartRow.site == site))
        if visible is not None:
            query = query.where(CycleRow.scope.in_(visible))
        return [Cycle.model_validate(row) for row in self._session.scalars(query)]

    def count_by_state(self) -> dict[State, int]:
        """Return how many cycles are in each state; a state that none is in is left out."""
        query = select(CycleRow.state, func.count()).group_by(CycleRow.state)
        return {State(state): count for state, count in self._session.execute(query).tuples()}

    def unfinished(self, site: str = "", states: Iterable[State] = ()) -> list[Cycle]:
        """Return cycles that have not ended, oldest first.

        Args:
            site: Only those that this site has not dropped out of; empty: those of all sites.
            states: Only those in one of these states; empty: in all states that are not final.
        """
        query = select(CycleRow).order_by(CycleRow.number)
        wanted = [s.value for s in states]
        if wanted:
            query = query.where(CycleRow.state.in_(wanted))
        else:
            query = query.where(CycleRow.state.not_in([s.value for s in ENDS]))
        if site:
            stays = PartRow.state.not_in([s.value for s in DROPPED])
            query = query.where(CycleRow.parts.any(and_(PartRow.site == site, stays)))
        return [Cycle.model_validate(row) for row in self._session.scalars(query)]

    def move_part(
        self,
        cycle_id: str,
        site: str,
        state: State,
        now: datetime,
        actor: str,
        reason: str,
        metrics: Json | None = None,
        **changes: object,
    ) -> Cycle:
        """Change the state of one site's part, and of the cycle where that follows.

        Args:
            cycle_id: The cycle.
            site: The site.
            state: The new state of the site's part.
            now: The current time.
            actor: Who brought it about.
            reason: Why, for the record.
            metrics: What decided it, for the record.
            **changes: Further fields of the part that change with the state.

        Raises:
            NotFound: There is no such cycle, or the site takes no part in it.
            WrongState: The table of states does not allow it.
        """
        row = self._row(cycle_id)
        part = self._part(row, site)
        check_transition(State(part.state), state)
        part.state = state.value
        part.progress = None
        self._change(part, now, changes)
        after = joint_state(State(row.state), [State(part.state) for part in row.parts])
        return self.move(cycle_id, after, now, actor, reason, metrics)

    def move(
        self,
        cycle_id: str,
        state: State,
        now: datetime,
        actor: str,
        reason: str,
        metrics: Json | None = None,
        **changes: object,
    ) -> Cycle:
        """Change the state of a cycle.

        Args:
            cycle_id: The cycle.
            state: The new state.
            now: The current time.
            actor: Who brought it about.
            reason: Why, for the record.
            metrics: What decided it, for the record.
            **changes: Further fields of the cycle that change with the state.

        Raises:
            NotFound: There is no such cycle.
            WrongState: The table of states does not allow it.
        """
        row = self._row(cycle_id)
        check_transition(State(row.state), state)
        row.state = state.value
        row.progress = None
        self._change(row, now, changes)
        self._record(row, state, now, actor, reason, metrics or {})
        return Cycle.model_validate(row)

    def change_part(self, cycle_id: str, site: str, now: datetime, **changes: object) -> Cycle:
        """Change fields of a site's part within a state; it counts as progress of the site and of the cycle.

        Raises:
            NotFound: There is no such cycle, or the site takes no part in it.
        """
        row = self._row(cycle_id)
        self._change(self._part(row, site), now, changes)
        self._change(row, now, {})
        self._session.flush()
        self._changed_topics.add(cycle_topic(cycle_id))
        return Cycle.model_validate(row)

    def record_external(self, cycle_id: str, site: str, said: ExternalValidation, now: datetime) -> Cycle:
        """Record what a site says about the candidate of a cycle that it takes no part in."""
        row = self._row(cycle_id)
        self._change(row, now, {"external": {**row.external, site: said.model_dump(mode="json")}})
        self._session.flush()
        self._changed_topics |= {cycle_topic(cycle_id), site_topic(site)}
        return Cycle.model_validate(row)

    def record_progress(self, cycle_id: str, progress: Progress, now: datetime, site: str = "") -> Cycle:
        """Record how far the cloud is, or the site where one is named.

        Raises:
            NotFound: There is no such cycle, or the site takes no part in it.
        """
        row, values = self._row(cycle_id), {"progress": progress.model_dump(mode="json")}
        if site:
            self._change(self._part(row, site), now, values)
        self._change(row, now, values)
        self._session.flush()
        self._changed_topics.add(cycle_topic(cycle_id))
        return Cycle.model_validate(row)

    def _row(self, cycle_id: str, visible: Collection[str] | None = None) -> CycleRow:
        row = self._session.get(CycleRow, cycle_id)
        if row is None or (visible is not None and row.scope not in visible):
            raise NotFound(f"there is no cycle {cycle_id!r}: `diredi cycle list` names them")
        return row

    def _part(self, row: CycleRow, site: str) -> PartRow:
        part = next((part for part in row.parts if part.site == site), None)
        if part is None:
            raise NotFound(
                f"site {site!r} has no part in cycle {row.id!r}: `diredi cycle show {row.id}` names its sites"
            )
        return part

    def _change(self, row: CycleRow | PartRow, now: datetime, changes: Mapping[str, object]) -> None:
        row.progressed_at = now
        for name, value in changes.items():
            setattr(row, name, value)

    def _record(self, row: CycleRow, state: State, at: datetime, actor: str, reason: str, metrics: Json) -> None:
        self._changed_topics |= {CYCLES, cycle_topic(row.id), *(site_topic(part.site) for part in row.parts)}
        self._changed_topics |= {site_topic(site) for site in row.external}
        step = TransitionRow(cycle_id=row.id, state=state.value, at=at, actor=actor, reason=reason, metrics=metrics)
        row.history.append(step)
        self._session.flush()
        self._log.record_transition(row, step)
