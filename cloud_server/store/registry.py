"""Models, releases, the label space and single facts in the database."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select, union_all
from sqlalchemy.orm import Session

from cloud_server.entities import Json, Model, ModelKind, Release, ReleaseStatus, Rollout
from cloud_server.notifier import CLASSES, RELEASES
from cloud_server.scopes import FLEET
from cloud_server.store.log import Log
from cloud_server.store.schema import ClassRow, CycleRow, FactRow, ModelRow, ReleaseRow
from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob

_MIN_PREFIX = 8
_CONTINUE_AFTER = "releases continue after"


class Models:
    """The detectors of the registry."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, model: Model) -> Model:
        """Register a model. One with the same bytes is the same model, and adding it again changes nothing."""
        if self._session.get(ModelRow, model.id) is None:
            values = model.model_dump(mode="json", exclude={"scope"})
            self._session.add(ModelRow(**values | {"created": model.created}))
            self._session.flush()
        return model

    def get(self, model_id: str, visible: Collection[str] | None = None) -> Model:
        """Return a model.

        Args:
            model_id: The model's id, or its first 8 or more hex digits.
            visible: The scopes in which to look; None: all.

        Raises:
            NotFound: There is no such model in these scopes.
            WrongState: More than one id begins so.
        """
        digits = model_id.removeprefix("sha256:")
        rows: Sequence[ModelRow] = []
        if len(digits) >= _MIN_PREFIX and digits.isalnum():
            query = select(ModelRow).where(ModelRow.id.startswith(f"sha256:{digits}"), *_made_in(visible)).limit(2)
            rows = self._session.scalars(query).all()
        if not rows:
            raise NotFound(f"no model {model_id!r} in the registry: `diredi model list` names them all")
        if len(rows) > 1:
            raise WrongState(f"{model_id!r} is the beginning of more than one model's id: give more digits")
        return Model.model_validate(rows[0])

    def all(
        self,
        kind: ModelKind | None = None,
        visible: Collection[str] | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[Model]:
        """Return models, newest first.

        Args:
            kind: Only those of this kind; None: of all.
            visible: Only those of these scopes; None: of all.
            after: Only those behind the model of this id; empty: all.
            limit: At most so many; None: all.

        Raises:
            InvalidInput: There is no model of the id `after`.
        """
        query = select(ModelRow).where(*_made_in(visible)).order_by(ModelRow.created.desc(), ModelRow.id).limit(limit)
        if after:
            last = self._session.get(ModelRow, after)
            if last is None:
                raise InvalidInput("page_token is not one: send the next_page_token of the page before")
            query = query.where(
                or_(ModelRow.created < last.created, and_(ModelRow.created == last.created, ModelRow.id > last.id))
            )
        if kind is not None:
            query = query.where(ModelRow.kind == kind.value)
        return [Model.model_validate(row) for row in self._session.scalars(query)]


def _made_in(scopes: Collection[str] | None) -> list[ColumnElement[bool]]:
    """Return what limits a query to the models that have been released in some scopes.

    A model that a gate has rejected, or that is not released yet, is nobody's business but the operators'.
    """
    if scopes is None:
        return []
    made = [
        select(model_id).where(ReleaseRow.scope.in_(scopes), ReleaseRow.status == ReleaseStatus.RELEASED.value)
        for model_id in (ReleaseRow.tutor_id, ReleaseRow.student_id)
    ]
    return [ModelRow.id.in_(union_all(*made))]


class Releases:
    """The releases, numbered from 1."""

    def __init__(self, session: Session, changed_topics: set[str], log: Log) -> None:
        self._session = session
        self._log = log
        self._changed_topics = changed_topics
        self._parents: dict[int, tuple[int, ...]] | None = None
        """As they were read in this transaction, until it adds a release: each scope's rebase asks for them."""

    def add(
        self,
        student: Model,
        tutor_id: str,
        status: ReleaseStatus,
        canaries: Sequence[str],
        cycle_id: str,
        now: datetime,
        scope: str = FLEET,
        rollout: Rollout | None = None,
    ) -> Release:
        """Add a release with the next version; versions are counted over all scopes.

        Args:
            student: The model that it ships.
            tutor_id: The tutor that belongs to it.
            status: Who may have it.
            canaries: Keys of the devices that may have it first.
            cycle_id: The cycle that it comes from; empty for the first release.
            now: The current time.
            scope: Whom it is for.
            rollout: In which steps devices get it once it is released; None: all at once.
        """
        row = ReleaseRow(
            version=self.last_version() + 1, student_id=student.id, tutor_id=tutor_id, cycle_id=cycle_id,
            status=status.value, canaries=list(canaries), scope=scope, created=now,
            rollout=None if rollout is None else rollout.model_dump(mode="json"),
        )  # fmt: skip
        self._session.add(row)
        self._session.flush()
        self._log.record_release(row)
        self._changed_topics.add(RELEASES)
        self._parents = None
        return Release.model_validate(row)

    def last_version(self) -> int:
        """Return the highest number that was given out, also to releases that this database has lost; 0 for none."""
        lost = self._session.get(FactRow, _CONTINUE_AFTER)
        return max(
            self._session.scalar(select(func.max(ReleaseRow.version))) or 0, lost.value["version"] if lost else 0
        )

    def continue_after(self, version: int) -> None:
        """Give the next release a number above this one."""
        self._session.merge(FactRow(name=_CONTINUE_AFTER, value={"version": version}))

    def set_status(self, version: int, status: ReleaseStatus, now: datetime) -> None:
        """Change who may have a release."""
        self._session.get_one(ReleaseRow, version).status = status.value
        self._log.record_status(version, status.value, now)
        self._changed_topics.add(RELEASES)

    def set_rollout(
        self, version: int, rollout: Rollout, actor: str, reason: str, now: datetime, figures: Json | None = None
    ) -> Release:
        """Change how far a rollout is. One that only waits is recorded without a word in the log of decisions.

        Args:
            version: The release.
            rollout: How far it is.
            actor: Who has decided.
            reason: Why; empty where nothing was decided.
            now: The current time.
            figures: How the release does on its devices, for the log; None where nobody has counted.
        """
        row = self._session.get_one(ReleaseRow, version)
        row.rollout = rollout.model_dump(mode="json")
        if reason:
            self._log.record_rollout(row, actor, reason, now, figures)
            self._changed_topics.add(RELEASES)
        self._session.flush()
        return Release.model_validate(row)

    def all(self, scope: str = "") -> list[Release]:
        """Return all releases, or those of one scope, newest first."""
        query = select(ReleaseRow).order_by(ReleaseRow.version.desc())
        if scope:
            query = query.where(ReleaseRow.scope == scope)
        return [Release.model_validate(row) for row in self._session.scalars(query)]

    def find(self, tutor_id: str, student_id: str) -> Release:
        """Return the release of these two models, the first if there are several.

        Raises:
            NotFound: There is no such release.
        """
        query = select(ReleaseRow).where(ReleaseRow.tutor_id == tutor_id, ReleaseRow.student_id == student_id)
        row = self._session.scalar(query.order_by(ReleaseRow.version).limit(1))
        if row is None:
            raise NotFound(f"there is no release of tutor {tutor_id} and student {student_id}")
        return Release.model_validate(row)

    def parents(self) -> dict[int, tuple[int, ...]]:
        """Return what each release came from: the one that its cycle began with, then the one that it rebases.

        One with the same models as an earlier release has that one as its only parent, the first release has none.
        """
        if self._parents is not None:
            return self._parents
        cycle = (CycleRow.base_tutor_id, CycleRow.base_student_id, CycleRow.rebases)
        query = select(ReleaseRow.version, ReleaseRow.tutor_id, ReleaseRow.student_id, *cycle)
        query = query.outerjoin(CycleRow, CycleRow.id == ReleaseRow.cycle_id).order_by(ReleaseRow.version)
        first: dict[tuple[str, str], int] = {}
        parents = {}
        for version, tutor, student, base_tutor, base_student, rebases in self._session.execute(query):
            same = first.setdefault((tutor, student), version)
            came_from = (first.get((base_tutor, base_student)), rebases) if same == version else (same,)
            parents[version] = tuple(parent for parent in came_from if parent)
        self._parents = parents
        return parents

    def scopes(self) -> list[str]:
        """Return the scopes that have a release, withdrawn ones included."""
        return sorted(self._session.scalars(select(ReleaseRow.scope).distinct()))

    def current(self, scopes: Sequence[str] = (FLEET,)) -> Release | None:
        """Return the newest release that every device may have, or None.

        Args:
            scopes: The scopes in which to look, the one that counts first.
        """
        for scope in scopes:
            query = select(ReleaseRow).where(ReleaseRow.status == ReleaseStatus.RELEASED.value)
            query = query.where(ReleaseRow.scope == scope).order_by(ReleaseRow.version.desc()).limit(1)
            if (row := self._session.scalar(query)) is not None:
                return Release.model_validate(row)
        return None

    def get(self, version: int, visible: Collection[str] | None = None) -> Release:
        """Return a release.

        Args:
            version: Its number.
            visible: The scopes in which to look; None: all.

        Raises:
            NotFound: There is no such release in these scopes.
        """
        row = self._session.get(ReleaseRow, version)
        if row is None or (visible is not None and row.scope not in visible):
            raise NotFound(f"there is no release {version}")
        return Release.model_validate(row)


class Classes:
    """The label spaces. A name stays given, whatever becomes of the cycle that asked for it."""

    def __init__(self, session: Session, changed_topics: set[str]) -> None:
        self._session = session
        self._changed_topics = changed_topics

    def labels(self) -> LabelSpace | None:
        """Return all classes that have an id in the fleet; None before the first release."""
        rows = self._rows(FLEET)
        if not rows:
            return None
        return LabelSpace(version=max(row.version for row in rows), names=tuple(row.name for row in rows))

    def assign_ids(
        self, names: Sequence[str], cycle_id: str, now: datetime, distinct: Container[str] = (), site: str = ""
    ) -> LabelSpace:
        """Give ids in the fleet to class names and return the fleet's whole label space.

        Args:
            names: Class names. Known ones keep their ids, new ones get the next.
            cycle_id: The cycle that asks for them; empty for the first classes.
            now: The current time.
            distinct: Names that are classes of their own, whatever known name they are like.
            site: The site that proposes them; empty for the first classes.

        Raises:
            InvalidInput: A new name may mean a known class, or another new one, and nobody has decided that.
        """
        before = self.labels()
        if before is None:
            after = LabelSpace(names=tuple(dict.fromkeys(names)))
        else:
            before.check_decided(names, distinct)
            after = before.expand(names, distinct=distinct)
        for class_id in range(0 if before is None else len(before), len(after)):
            self._add(FLEET, class_id, after.names[class_id], after.version, cycle_id, now, site)
        self._session.flush()
        return after

    def labels_of(self, scope: str, base: LabelSpace) -> LabelSpace | None:
        """Return the label space of a scope: all that a cycle's site may use.

        Args:
            scope: The scope. The fleet's label space is one list; that of another scope begins with `base`.
            base: The classes of the release that the cycle starts from.

        Returns:
            The label space; None for the fleet's before the first release.
        """
        return self.labels() if scope == FLEET else self._own(scope, base)

    def count_proposed(self, site: str, cycle_id: str = "") -> int:
        """Return how many new names a site has proposed in all scopes, or in one cycle."""
        query = select(func.count()).select_from(ClassRow).where(ClassRow.site == site)
        if cycle_id:
            query = query.where(ClassRow.cycle_id == cycle_id)
        return self._session.scalar(query) or 0

    def propose(
        self,
        scope: str,
        base: LabelSpace,
        names: Sequence[str],
        cycle_id: str,
        now: datetime,
        distinct: Container[str] = (),
        site: str = "",
    ) -> LabelSpace:
        """Give ids in a scope to class names and return the scope's whole label space.

        Args:
            scope: The scope.
            base: The classes of the release that the cycle starts from.
            names: Class names. Known ones keep their ids, new ones get the next.
            cycle_id: The cycle that asks for them.
            now: The current time.
            distinct: Names of which the site has said that they are classes of their own, whatever they are like.
            site: The site that proposes them.

        Raises:
            InvalidInput: A new name may mean a known class, or another new one, and the site has not decided that.
        """
        if scope == FLEET:
            return self.assign_ids(names, cycle_id, now, distinct, site)
        before = self._own(scope, base)
        for known in (base, before):  # what the scope named first may be like what the fleet has named since
            known.check_decided(names, distinct)
        after = before.expand(names, distinct=distinct)
        for place, name in enumerate(after.new_since(before), len(self._rows(scope))):
            self._add(scope, place, name, after.version, cycle_id, now, site)
        self._session.flush()
        return after

    def _own(self, scope: str, base: LabelSpace) -> LabelSpace:
        """The classes of a scope, behind those of `base`. They were decided on when they were given their ids."""
        names = [row.name for row in self._rows(scope)]
        return base.expand(names, distinct=names)

    def counts(self) -> dict[str, int]:
        """Return how many names each scope has."""
        query = select(ClassRow.scope, func.count()).group_by(ClassRow.scope).order_by(ClassRow.scope)
        return {row[0]: row[1] for row in self._session.execute(query)}

    def _rows(self, scope: str) -> Sequence[ClassRow]:
        return self._session.scalars(select(ClassRow).where(ClassRow.scope == scope).order_by(ClassRow.id)).all()

    def _add(self, scope: str, place: int, name: str, version: int, cycle_id: str, now: datetime, site: str) -> None:
        self._changed_topics.add(CLASSES)
        self._session.add(
            ClassRow(scope=scope, id=place, name=name, version=version, cycle_id=cycle_id, site=site, created=now)
        )


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
