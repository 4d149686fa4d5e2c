"""A cycle may be a rebase: its sites have sent no gap, and their figures of before are those of an earlier cycle."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cycles", sa.Column("rebases", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_cycles_rebases", "cycles", ["rebases"], unique=False)
    op.add_column("parts", sa.Column("before", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("parts", "before")
    op.drop_index("ix_cycles_rebases", "cycles")
    op.drop_column("cycles", "rebases")
