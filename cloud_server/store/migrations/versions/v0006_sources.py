"""A device says how its sources of frames are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("sources", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("devices", "sources")
