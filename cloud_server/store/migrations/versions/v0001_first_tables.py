"""The first tables: registry, cycles, sites, devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "classes",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "cycles",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("base_tutor_id", sa.String(), nullable=False),
        sa.Column("base_student_id", sa.String(), nullable=False),
        sa.Column("updated_tutor_id", sa.String(), nullable=False),
        sa.Column("updated_student_id", sa.String(), nullable=False),
        sa.Column("release_version", sa.BigInteger(), nullable=False),
        sa.Column("gap", sa.JSON(), nullable=True),
        sa.Column("site_after", sa.JSON(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("request_id"),
    )
    op.create_index("ix_cycles_created", "cycles", ["created"], unique=False)
    op.create_index("ix_cycles_site_state", "cycles", ["site", "state"], unique=False)

    op.create_table(
        "devices",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("release_version", sa.BigInteger(), nullable=False),
        sa.Column("frames", sa.BigInteger(), nullable=False),
        sa.Column("frames_per_second", sa.Double(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_devices_site", "devices", ["site"], unique=False)

    op.create_table(
        "facts",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("architecture", sa.String(), nullable=False),
        sa.Column("image_size", sa.BigInteger(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("onnx", sa.JSON(), nullable=True),
        sa.Column("parent_id", sa.String(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("presumed", sa.JSON(), nullable=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_models_created", "models", ["created"], unique=False)

    op.create_table(
        "sites",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("auto_approve", sa.Boolean(), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "installs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("release_version", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device"],
            ["devices.key"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_installs_device", "installs", ["device"], unique=False)

    op.create_table(
        "releases",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("student_id", sa.String(length=80), nullable=False),
        sa.Column("tutor_id", sa.String(length=80), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("canaries", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["student_id"],
            ["models.id"],
        ),
        sa.ForeignKeyConstraint(
            ["tutor_id"],
            ["models.id"],
        ),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "transitions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("cycle_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cycle_id"],
            ["cycles.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_transitions_cycle_id", "transitions", ["cycle_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_transitions_cycle_id", "transitions")

    op.drop_table("transitions")
    op.drop_table("releases")
    op.drop_index("ix_installs_device", "installs")

    op.drop_table("installs")
    op.drop_table("sites")
    op.drop_index("ix_models_created", "models")

    op.drop_table("models")
    op.drop_table("facts")
    op.drop_index("ix_devices_site", "devices")

    op.drop_table("devices")
    op.drop_index("ix_cycles_site_state", "cycles")
    op.drop_index("ix_cycles_created", "cycles")

    op.drop_table("cycles")
    op.drop_table("classes")
