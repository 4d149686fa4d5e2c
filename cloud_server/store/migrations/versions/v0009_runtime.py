"""A device says what runs its network."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("runtime", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("devices", "runtime")
