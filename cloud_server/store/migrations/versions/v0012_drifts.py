"""A device says what has changed in front of its cameras."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("drifts", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("devices", "drifts")
