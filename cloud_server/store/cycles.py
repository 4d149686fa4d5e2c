"""The cycles' part of the repository: a state never changes without a transition on record."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_server.domain import Cycle, Json, Progress
from cloud_server.states import ENDS, State, check_transition
from cloud_server.store.schema import CycleRow, TransitionRow
from diredi.errors import NotFound


class Cycles:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, cycle: Cycle, actor: str, reason: str) -> Cycle:
        values = cycle.model_dump(mode="json", exclude={"history", "progressed_at", "created"})
        row = CycleRow(**values, progressed_at=cycle.progressed_at, created=cycle.created)
        self._session.add(row)
        self._session.flush()
        self._record(row, cycle.state, cycle.created, actor, reason, {})
        return Cycle.model_validate(row)

    def get(self, cycle_id: str) -> Cycle:
        return Cycle.model_validate(self._row(cycle_id))

    def by_request(self, request_id: str) -> Cycle | None:
        row = self._session.scalar(select(CycleRow).where(CycleRow.request_id == request_id))
        return None if row is None else Cycle.model_validate(row)

    def recent(self, site: str = "", limit: int = 100) -> list[Cycle]:
        """Newest first; of one site or of all."""
        query = select(CycleRow).order_by(CycleRow.created.desc(), CycleRow.id).limit(limit)
        if site:
            query = query.where(CycleRow.site == site)
        return [Cycle.model_validate(row) for row in self._session.scalars(query)]

    def under_way(self, site: str = "", states: Iterable[State] = ()) -> list[Cycle]:
        """Oldest first; those in `states`, or all that have not ended."""
        query = select(CycleRow).order_by(CycleRow.created, CycleRow.id)
        wanted = [s.value for s in states]
        if wanted:
            query = query.where(CycleRow.state.in_(wanted))
        else:
            query = query.where(CycleRow.state.not_in([s.value for s in ENDS]))
        if site:
            query = query.where(CycleRow.site == site)
        return [Cycle.model_validate(row) for row in self._session.scalars(query)]

    def move(
        self,
        cycle_id: str,
        state: State,
        now: datetime,
        actor: str,
        reason: str,
        figures: Json | None = None,
        **changes: object,
    ) -> Cycle:
        """The transition and what changes with it, in one. Raises WrongState when the table does not allow it."""
        row = self._row(cycle_id)
        check_transition(State(row.state), state)
        row.state = state.value
        row.progress = None
        self._change(row, now, changes)
        self._record(row, state, now, actor, reason, figures or {})
        return Cycle.model_validate(row)

    def change(self, cycle_id: str, now: datetime, **changes: object) -> Cycle:
        """What may change within a state; counts as progress."""
        row = self._row(cycle_id)
        self._change(row, now, changes)
        self._session.flush()
        return Cycle.model_validate(row)

    def report(self, cycle_id: str, progress: Progress, now: datetime) -> Cycle:
        return self.change(cycle_id, now, progress=progress.model_dump(mode="json"))

    def _row(self, cycle_id: str) -> CycleRow:
        row = self._session.get(CycleRow, cycle_id)
        if row is None:
            raise NotFound(f"there is no cycle {cycle_id!r}: `diredi cycle list` names them")
        return row

    def _change(self, row: CycleRow, now: datetime, changes: dict[str, object]) -> None:
        row.progressed_at = now
        for name, value in changes.items():
            setattr(row, name, value)

    def _record(self, row: CycleRow, state: State, at: datetime, actor: str, reason: str, figures: Json) -> None:
        row.history.append(
            TransitionRow(cycle_id=row.id, state=state.value, at=at, actor=actor, reason=reason, figures=figures)
        )
        self._session.flush()
