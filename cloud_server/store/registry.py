"""The registry's part of the repository: models, releases, the label space, single facts."""

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
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, model: Model) -> Model:
        """Adding a model that is there changes nothing: the same bytes are the same model."""
        if self._session.get(ModelRow, model.id) is None:
            self._session.add(ModelRow(**model.model_dump(mode="json") | {"created": model.created}))
            self._session.flush()
        return model

    def get(self, model_id: str) -> Model:
        """By id or by a prefix of 8 or more hex digits of it. Raises NotFound; WrongState: an ambiguous prefix."""
        digits = model_id.removeprefix("sha256:")
        rows: Sequence[ModelRow] = []
        if len(digits) >= _MIN_PREFIX and digits.isalnum():
            found = select(ModelRow).where(ModelRow.id.startswith(f"sha256:{digits}")).limit(2)
            rows = self._session.scalars(found).all()
        if not rows:
            raise NotFound(f"no model {model_id!r} in the registry: `diredi model list` names them all")
        if len(rows) > 1:
            raise WrongState(f"{model_id!r} is the beginning of more than one model's id: give more digits")
        return Model.model_validate(rows[0])

    def all(self, kind: ModelKind | None = None) -> list[Model]:
        """Newest first."""
        query = select(ModelRow).order_by(ModelRow.created.desc(), ModelRow.id)
        if kind is not None:
            query = query.where(ModelRow.kind == kind.value)
        return [Model.model_validate(row) for row in self._session.scalars(query)]


class Releases:
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
        """The next version."""
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
        self._session.get_one(ReleaseRow, version).status = status.value
        self._changed_topics.add(RELEASES)

    def all(self) -> list[Release]:
        """Newest first."""
        rows = self._session.scalars(select(ReleaseRow).order_by(ReleaseRow.version.desc()))
        return [Release.model_validate(row) for row in rows]

    def current(self) -> Release | None:
        """The newest one that everybody may have."""
        query = select(ReleaseRow).where(ReleaseRow.status == ReleaseStatus.RELEASED.value)
        row = self._session.scalar(query.order_by(ReleaseRow.version.desc()).limit(1))
        return None if row is None else Release.model_validate(row)

    def get(self, version: int) -> Release:
        row = self._session.get(ReleaseRow, version)
        if row is None:
            raise NotFound(f"there is no release {version}")
        return Release.model_validate(row)


class Classes:
    """The label space. An id that was given stays given, whatever became of the cycle that asked for it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def labels(self) -> LabelSpace | None:
        rows = self._session.scalars(select(ClassRow).order_by(ClassRow.id)).all()
        if not rows:
            return None
        return LabelSpace(version=max(row.version for row in rows), names=tuple(row.name for row in rows))

    def assign_ids(self, names: Sequence[str], cycle_id: str, now: datetime) -> LabelSpace:
        """Known names keep their ids, new ones get the next."""
        before = self.labels()
        after = LabelSpace(names=tuple(dict.fromkeys(names))) if before is None else before.expand(names)
        for class_id in range(0 if before is None else len(before), len(after)):
            self._session.add(
                ClassRow(id=class_id, name=after.names[class_id], version=after.version, cycle_id=cycle_id, created=now)
            )
        self._session.flush()
        return after


class Facts:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, name: str) -> Json | None:
        row = self._session.get(FactRow, name)
        return None if row is None else dict(row.value)

    def put(self, name: str, value: Json) -> None:
        self._session.merge(FactRow(name=name, value=value))

    @property
    def coreset(self) -> Blob | None:
        """The presumed pictures that the manufacturer ships to its sites."""
        value = self.get("coreset")
        return None if value is None else Blob(**value)
