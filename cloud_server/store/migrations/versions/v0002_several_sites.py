"""A cycle has several sites: what belonged to its one site becomes a row of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "parts",
        sa.Column("cycle_id", sa.String(length=32), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("dropped_because", sa.String(), nullable=False),
        sa.Column("publishes_style", sa.Boolean(), nullable=False),
        sa.Column("gap", sa.JSON(), nullable=True),
        sa.Column("certificate", sa.String(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"]),
        sa.PrimaryKeyConstraint("cycle_id", "site"),
    )
    op.create_index("ix_parts_site", "parts", ["site"], unique=False)
    # A cycle that failed after its upload has a gap; one that failed before has none.
    op.execute(
        """
        INSERT INTO parts (cycle_id, site, position, state, approved, dropped_because, publishes_style, gap,
                           certificate, after, progress, progressed_at)
        SELECT id, site, 0,
               CASE WHEN gap IS NOT NULL THEN 'UPLOADED' ELSE state END,
               approved, '', false, gap, '', site_after,
               CASE WHEN state = 'EXTRACTING' THEN progress END, progressed_at
        FROM cycles
        """
    )
    op.drop_index("ix_cycles_site_state", "cycles")
    op.create_index("ix_cycles_state", "cycles", ["state"], unique=False)
    for column in ("site", "approved", "gap", "site_after"):
        op.drop_column("cycles", column)


def downgrade() -> None:
    """Keeps the first site of each cycle."""
    op.add_column("cycles", sa.Column("site", sa.String(), nullable=False, server_default=""))
    op.add_column("cycles", sa.Column("approved", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("cycles", sa.Column("gap", sa.JSON(), nullable=True))
    op.add_column("cycles", sa.Column("site_after", sa.JSON(), nullable=True))
    for column, source in (("site", "site"), ("approved", "approved"), ("gap", "gap"), ("site_after", "after")):
        op.execute(
            f"UPDATE cycles SET {column} ="
            f" (SELECT {source} FROM parts WHERE parts.cycle_id = cycles.id AND position = 0)"
        )
    op.drop_index("ix_cycles_state", "cycles")
    op.create_index("ix_cycles_site_state", "cycles", ["site", "state"], unique=False)
    op.drop_index("ix_parts_site", "parts")
    op.drop_table("parts")
