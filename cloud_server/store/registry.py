"""Models, releases, the label space and single facts in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud_server.entities import Json, Model, ModelKind, Release, ReleaseStatus
from cloud_server.notifier import RELEASES
from cloud_server.store.schema import ClassRow, FactRow, ModelRow, ReleaseRow
from diredi.errors import NotFound, WrongState
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob

_MIN_PREFIX = 8


class Models:
    """The detectors of the registry."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, model: Model) -> Model:
        """Register a model. One with the same bytes is the same model, and adding it again changes nothing."""
        if self._session.get(ModelRow, model.id) is None:
            self._session.add(ModelRow(**model.model_dump(mode="json") | {"created": model.created}))
            self._session.flush()
        return model

    def get(self, model_id: str) -> Model:
        """Return a model.

        Args:
            model_id: The model's id, or its first 8 or more hex digits.

        Raises:
            NotFound: There is no such model.
            WrongState: More than one id begins so.
        """
        digits = model_id.removeprefix("sha256:")
        rows: Sequence[ModelRow] = []
        if len(digits) >= _MIN_PREFIX and digits.isalnum():
            query = select(ModelRow).where(ModelRow.id.startswith(f"sha256:{digits}")).limit(2)
            rows = self._session.scalars(query).all()
        if not rows:
            raise NotFound(f"no model {model_id!r} in the registry: `diredi model list` names them all")
        if len(rows) > 1:
            raise WrongState(f"{model_id!r} is the beginning of more than one model's id: give more digits")
        return Model.model_validate(rows[0])

    def all(self, kind: ModelKind | None = None) -> list[Model]:
        """Return all models, or those of one kind, newest first."""
        query = select(ModelRow).order_by(ModelRow.created.desc(), ModelRow.id)
        if kind is not None:
            query = query.where(ModelRow.kind == kind.value)
        return [Model.model_validate(row) for row in self._session.scalars(query)]


class Releases:
    """The releases, numbered from 1."""

    def __init__(self, session: Session, changed_topics: set[str]) -> None:
        self._session = session
        self._changed_topics = changed_topics

    def add(
        self,
        student: Model,
        tutor_id: str,
        status: ReleaseStatus,
        canaries: Sequence[str],
        cycle_id: str,
        now: datetime,
    ) -> Release:
        """Add a release with the next version.

        Args:
            student: The model that it ships.
            tutor_id: The tutor that belongs to it.
            status: Who may have it.
            canaries: Keys of the devices that may have it first.
            cycle_id: The cycle that it comes from; empty for the first release.
            now: The current time.
        """
        last = self._session.scalar(select(func.max(ReleaseRow.version))) or 0
        row = ReleaseRow(
            version=last + 1, student_id=student.id, tutor_id=tutor_id, cycle_id=cycle_id,
            status=status.value, canaries=list(canaries), created=now,
        )  # fmt: skip
        self._session.add(row)
        self._session.flush()
        self._changed_topics.add(RELEASES)
        return Release.model_validate(row)

    def set_status(self, version: int, status: ReleaseStatus) -> None:
        """Change who may have a release."""
        self._session.get_one(ReleaseRow, version).status = status.value
        self._changed_topics.add(RELEASES)

    def all(self) -> list[Release]:
        """Return all releases, newest first."""
        rows = self._session.scalars(select(ReleaseRow).order_by(ReleaseRow.version.desc()))
        return [Release.model_validate(row) for row in rows]

    def current(self) -> Release | None:
        """Return the newest release that every device may have, or None."""
        query = select(ReleaseRow).where(ReleaseRow.status == ReleaseStatus.RELEASED.value)
        row = self._session.scalar(query.order_by(ReleaseRow.version.desc()).limit(1))
        return None if row is None else Release.model_validate(row)

    def get(self, version: int) -> Release:
        """Return a release.

        Raises:
            NotFound: There is no such release.
        """
        row = self._session.get(ReleaseRow, version)
        if row is None:
            raise NotFound(f"there is no release {version}")
        return Release.model_validate(row)


class Classes:
    """The label space. An id stays given, whatever becomes of the cycle that asked for it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def labels(self) -> LabelSpace | None:
        """Return all classes that have an id; None before the first release."""
        rows = self._session.scalars(select(ClassRow).order_by(ClassRow.id)).all()
        if not rows:
            return None
        return LabelSpace(version=max(row.version for row in rows), names=tuple(row.name for row in rows))

    def assign_ids(self, names: Sequence[str], cycle_id: str, now: datetime) -> LabelSpace:
        """Give ids to class names and return the whole label space.

        Args:
            names: Class names. Known ones keep their ids, new ones get the next.
            cycle_id: The cycle that asks for them; empty for the first classes.
            now: The current time.
        """
        before = self.labels()
        after = LabelSpace(names=tuple(dict.fromkeys(names))) if before is None else before.expand(names)
        for class_id in range(0 if before is None else len(before), len(after)):
            self._session.add(
                ClassRow(id=class_id, name=after.names[class_id], version=after.version, cycle_id=cycle_id, created=now)
            )
        self._session.flush()
        return after


class Facts:
    """Single values that have no table of their own."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, name: str) -> Json | None:
        """Return a value, or None."""
        row = self._session.get(FactRow, name)
        return None if row is None else dict(row.value)

    def put(self, name: str, value: Json) -> None:
        """Set a value."""
        self._session.merge(FactRow(name=name, value=value))

    @property
    def coreset(self) -> Blob | None:
        """The archive of presumed images that sites mix into their training, or None."""
        value = self.get("coreset")
        return None if value is None else Blob(**value)
