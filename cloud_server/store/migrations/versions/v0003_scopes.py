"""Cycles, releases and class names have a scope, and sites may be in a group. All that there was is the fleet's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OF_OTHER_SCOPES = "SELECT id FROM cycles WHERE scope <> 'fleet'"


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["sites.name"]),
        sa.PrimaryKeyConstraint("site"),
    )
    op.create_index("ix_groups_name", "groups", ["name"], unique=False)
    for table in ("cycles", "releases"):
        op.add_column(table, sa.Column("scope", sa.String(), nullable=False, server_default="fleet"))
    op.create_index("ix_cycles_scope", "cycles", ["scope"], unique=False)
    op.create_table(
        "scoped_classes",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", "id"),
        sa.UniqueConstraint("scope", "name"),
    )
    op.execute(
        "INSERT INTO scoped_classes (scope, id, name, version, cycle_id, created)"
        " SELECT 'fleet', id, name, version, cycle_id, created FROM classes"
    )
    op.drop_table("classes")
    op.rename_table("scoped_classes", "classes")


def downgrade() -> None:
    """Keeps what is the fleet's. An older cloud would show the rest to everybody, so it is deleted."""
    op.create_table(
        "fleet_classes",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.execute(
        "INSERT INTO fleet_classes (id, name, version, cycle_id, created)"
        " SELECT id, name, version, cycle_id, created FROM classes WHERE scope = 'fleet'"
    )
    op.drop_table("classes")
    op.rename_table("fleet_classes", "classes")
    op.execute("DELETE FROM releases WHERE scope <> 'fleet'")
    op.execute(
        f"DELETE FROM models WHERE cycle_id IN ({_OF_OTHER_SCOPES})"
        " AND id NOT IN (SELECT student_id FROM releases UNION SELECT tutor_id FROM releases)"
    )
    for table in ("transitions", "parts"):
        op.execute(f"DELETE FROM {table} WHERE cycle_id IN ({_OF_OTHER_SCOPES})")
    op.execute("DELETE FROM cycles WHERE scope <> 'fleet'")
    op.drop_index("ix_cycles_scope", "cycles")
    for table in ("cycles", "releases"):
        op.drop_column(table, "scope")
    op.drop_index("ix_groups_name", "groups")
    op.drop_table("groups")
