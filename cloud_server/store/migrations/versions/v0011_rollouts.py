"""A release may reach its devices in steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("releases", sa.Column("rollout", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("releases", "rollout")
