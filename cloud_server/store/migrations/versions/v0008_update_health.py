"""A device says on how many frames its model has failed, and whether it is kept from updates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("failed_frames", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("updates_stalled", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("devices", "updates_stalled")
    op.drop_column("devices", "failed_frames")
