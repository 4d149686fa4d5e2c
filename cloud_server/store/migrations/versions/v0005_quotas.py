"""Uploads have an owner, class names the site that has proposed them, and cycles a number that no clock gives."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"]),
        sa.PrimaryKeyConstraint("digest", "site"),
    )
    op.create_index("ix_uploads_site", "uploads", ["site"], unique=False)
    op.add_column("classes", sa.Column("site", sa.String(), nullable=False, server_default=""))
    op.add_column("cycles", sa.Column("number", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_cycles_number", "cycles", ["number"], unique=False)
    op.execute(
        "UPDATE cycles SET number = (SELECT count(*) FROM cycles AS other WHERE other.created < cycles.created"
        " OR (other.created = cycles.created AND other.id <= cycles.id))"
    )


def downgrade() -> None:
    op.drop_index("ix_cycles_number", "cycles")
    op.drop_column("cycles", "number")
    op.drop_column("classes", "site")
    op.drop_index("ix_uploads_site", "uploads")
    op.drop_table("uploads")
