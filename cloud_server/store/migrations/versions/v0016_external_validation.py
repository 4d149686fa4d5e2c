"""Sites that take no part in a cycle are asked about its candidate, where they allow it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sites", sa.Column("validates_external", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("cycles", sa.Column("external", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("cycles", "external")
    op.drop_column("sites", "validates_external")
