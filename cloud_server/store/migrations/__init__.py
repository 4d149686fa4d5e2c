"""Alembic migrations, run when the cloud starts."""
