"""The tables. A change here needs a migration in `migrations/versions/`; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Integer,
    String,
    TypeDecorator,
    UniqueConstraint,
    func,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from cloud_server.scopes import FLEET


class UtcTime(TypeDecorator[datetime]):
    """Instants in UTC, also where the database (SQLite) forgets the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store a time in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read a time as UTC."""
        if value is None:
            return None
        moment = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_JSON = JSON(none_as_null=True)


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map: ClassVar = {dict[str, Any]: _JSON, list[str]: _JSON, datetime: UtcTime, int: BigInteger}


_SERIAL = BigInteger().with_variant(Integer(), "sqlite")


class ClassRow(Table):
    """The label spaces: a row for each name that was ever proposed, in whatever state its cycle ended.

    In the fleet's label space `id` is the class's id. In another scope it is the place among the names that the scope
    has added: its label space is that of the release that it starts from, followed by those of these that it lacks.
    """

    __tablename__ = "classes"
    __table_args__ = (UniqueConstraint("scope", "name"),)
    scope: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    cycle_id: Mapped[str]
    site: Mapped[str] = mapped_column(default="")
    """The site that has proposed it; empty: the manufacturer's, or from before that was recorded."""
    created: Mapped[datetime]


class ModelRow(Table):
    """A model in the registry."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    kind: Mapped[str]
    architecture: Mapped[str]
    image_size: Mapped[int]
    labels: Mapped[dict[str, Any]]
    weights: Mapped[dict[str, Any]]
    onnx: Mapped[dict[str, Any] | None]
    parent_id: Mapped[str]
    cycle_id: Mapped[str]
    presumed: Mapped[dict[str, Any] | None]
    created: Mapped[datetime] = mapped_column(index=True)
    scope: ClassVar[Any]  # is derived, see below CycleRow


class ReleaseRow(Table):
    """A release and its status."""

    __tablename__ = "releases"
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    student_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    tutor_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    cycle_id: Mapped[str]
    status: Mapped[str]
    canaries: Mapped[list[str]]
    scope: Mapped[str]
    rollout: Mapped[dict[str, Any] | None]
    created: Mapped[datetime]


class CycleRow(Table):
    """An update cycle and its present state."""

    __tablename__ = "cycles"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(index=True)
    """In the order in which cycles were started, whatever the clock said then."""
    request_id: Mapped[str] = mapped_column(String(128), unique=True)
    state: Mapped[str] = mapped_column(index=True)
    scope: Mapped[str] = mapped_column(index=True)
    rebases: Mapped[int] = mapped_column(index=True, default=0)
    recipe: Mapped[dict[str, Any]]
    base_tutor_id: Mapped[str]
    base_student_id: Mapped[str]
    updated_tutor_id: Mapped[str] = mapped_column(default="")
    updated_student_id: Mapped[str] = mapped_column(default="")
    release_version: Mapped[int] = mapped_column(default=0)
    external: Mapped[dict[str, Any]] = mapped_column(default=dict)
    progress: Mapped[dict[str, Any] | None]
    progressed_at: Mapped[datetime]
    created: Mapped[datetime] = mapped_column(index=True)
    parts: Mapped[list[PartRow]] = relationship(order_by="PartRow.position", lazy="selectin")
    history: Mapped[list[TransitionRow]] = relationship(order_by="TransitionRow.id", lazy="selectin")


class PartRow(Table):
    """One site's part in a cycle."""

    __tablename__ = "parts"
    cycle_id: Mapped[str] = mapped_column(ForeignKey("cycles.id"), primary_key=True)
    site: Mapped[str] = mapped_column(primary_key=True, index=True)
    position: Mapped[int]
    state: Mapped[str]
    approved: Mapped[bool]
    dropped_because: Mapped[str]
    publishes_style: Mapped[bool]
    before: Mapped[dict[str, Any] | None]
    gap: Mapped[dict[str, Any] | None]
    certificate: Mapped[str]
    after: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]
    progressed_at: Mapped[datetime]


ModelRow.scope = column_property(  # that of its cycle, and the fleet's where it is a first model
    func.coalesce(select(CycleRow.scope).where(CycleRow.id == ModelRow.cycle_id).scalar_subquery(), FLEET)
)


class UploadRow(Table):
    """A blob that a site has sent, or begun to send, for a cycle whose gap it has not submitted yet."""

    __tablename__ = "uploads"
    digest: Mapped[str] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(primary_key=True, index=True)
    cycle_id: Mapped[str] = mapped_column(ForeignKey("cycles.id"))
    bytes: Mapped[int]
    complete: Mapped[bool]


class TransitionRow(Table):
    """One recorded step of a cycle."""

    __tablename__ = "transitions"
    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    cycle_id: Mapped[str] = mapped_column(ForeignKey("cycles.id"), index=True)
    state: Mapped[str]
    at: Mapped[datetime]
    actor: Mapped[str]
    reason: Mapped[str]
    metrics: Mapped[dict[str, Any]] = mapped_column("figures")


class SiteRow(Table):
    """A site that the cloud has heard of."""

    __tablename__ = "sites"
    name: Mapped[str] = mapped_column(primary_key=True)
    auto_approve: Mapped[bool]
    validates_external: Mapped[bool] = mapped_column(default=False)
    last_seen: Mapped[datetime]


class GroupRow(Table):
    """The group that a site is in."""

    __tablename__ = "groups"
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    name: Mapped[str] = mapped_column(index=True)


class DeviceRow(Table):
    """An edge node that the cloud has heard of."""

    __tablename__ = "devices"
    key: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    site: Mapped[str] = mapped_column(index=True)
    release_version: Mapped[int]
    frames: Mapped[int]
    frames_per_second: Mapped[float]
    latency_ms: Mapped[float]
    sources: Mapped[dict[str, Any]]
    drifts: Mapped[dict[str, Any]]
    certificate_expires: Mapped[datetime | None]
    failed_frames: Mapped[int]
    updates_stalled: Mapped[bool]
    runtime: Mapped[str]
    update_wait: Mapped[str]
    detection: Mapped[dict[str, Any] | None]
    last_seen: Mapped[datetime]
    installs: Mapped[list[InstallRow]] = relationship(order_by="InstallRow.id", lazy="selectin")


class InstallRow(Table):
    """One installation of a release on a device, or its failure."""

    __tablename__ = "installs"
    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.key"), index=True)
    release_version: Mapped[int]
    outcome: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]


class LogRow(Table):
    """An entry of the log of decisions (`cloud_server.store.log`)."""

    __tablename__ = "log"
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    subject: Mapped[str] = mapped_column(index=True)
    entry: Mapped[str]
    details: Mapped[str]
    peaks: Mapped[list[str]]


class FactRow(Table):
    """Single things that have no table of their own, such as which coreset the manufacturer ships."""

    __tablename__ = "facts"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]
