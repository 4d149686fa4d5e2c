"""Decisions are in a log that only grows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("entry", sa.String(), nullable=False),
        sa.Column("details", sa.String(), nullable=False),
        sa.Column("peaks", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("index"),
    )
    op.create_index("ix_log_subject", "log", ["subject"])


def downgrade() -> None:
    op.drop_table("log")
