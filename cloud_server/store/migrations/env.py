"""Alembic's entry: runs the migrations in the transaction that the cloud has opened."""

from __future__ import annotations

from alembic import context

from cloud_server.store.schema import Table

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
