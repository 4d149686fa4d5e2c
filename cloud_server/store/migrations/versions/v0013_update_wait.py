"""A device says that its site makes it wait with a release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("update_wait", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("devices", "update_wait")
