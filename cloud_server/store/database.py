"""The database behind the repository: it is opened and migrated here, and transactions run in threads.

Every transaction is serializable, so the repository needs no locks of its own. SQLite takes its one write lock first
(`BEGIN IMMEDIATE`). PostgreSQL reports a conflict, and the transaction is run again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import alembic.command
import alembic.config
import alembic.script
import alembic.util.exc
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from cloud_server.store import Repository
from cloud_server.store.plain_json import to_json
from cloud_server.store.schema import Table
from diredi.errors import CorruptData, InvalidInput, NoRoom, Unreachable, WrongState

T = TypeVar("T")

_TRIES: Final = 8
_CONFLICTS: Final = frozenset({"40001", "40P01", "23505"})
_DISK_FULL: Final = frozenset({"53100"})
_WRITES: Final = "diredi_writes"
_ROWS_AT_ONCE: Final = 500


class Database:
    """An open database. `await database.write(lambda r: ...)` runs one short transaction in a thread."""

    def __init__(self, url: str, *, migrate: bool = True) -> None:
        """Open a database and bring its schema up to date.

        Args:
            url: "sqlite:///PATH" or "postgresql://USER@HOST/NAME".
            migrate: Whether the schema may be changed. A cloud may be running on one that is only read.

        Raises:
            InvalidInput: That is not the URL of such a database.
            Unreachable: The database does not answer.
            WrongState: The schema was made by a newer version, or by an older one and may not be changed.
            CorruptData: The database's file is damaged.
        """
        self._engine = _open(url)
        try:
            if self._engine.dialect.name == "sqlite":
                _check_sqlite(self._engine)
            with self._engine.execution_options(**{_WRITES: migrate}).begin() as connection:
                _migrate(connection) if migrate else _check_schema(connection)
        except DBAPIError as error:
            raise _to_diredi_error(error) from None

    async def read(self, work: Callable[[Repository], T]) -> T:
        """Run `work` in a transaction that only reads, and return its result."""
        return await asyncio.to_thread(self.transact, work, writes=False)

    async def write(self, work: Callable[[Repository], T]) -> T:
        """Run `work` in a transaction and return its result. All of it is stored or nothing.

        Args:
            work: Called with the repository, and called again after a conflict, so it changes nothing else.
        """
        return await asyncio.to_thread(self.transact, work, writes=True)

    def transact(self, work: Callable[[Repository], T], *, writes: bool) -> T:
        """Run `work` in a transaction in this thread and return its result.

        Raises:
            Unreachable: The database does not answer.
            NoRoom: The database's disk is full.
            CorruptData: The database's file is damaged.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                with Session(self._engine.execution_options(**{_WRITES: writes})) as session, session.begin():
                    return work(Repository(session))
            except DBAPIError as error:
                if attempt == _TRIES or getattr(error.orig, "sqlstate", None) not in _CONFLICTS:
                    raise _to_diredi_error(error) from error
        raise AssertionError

    def copy_to(self, target: Database) -> None:
        """Copy all rows, as one transaction sees them, into an empty database, which may be of the other kind.

        The database may be in use meanwhile: what is written after the copy has begun is not in it.

        Raises:
            WrongState: The target has rows already.
            Unreachable: A database does not answer.
            NoRoom: The target's disk is full.
            CorruptData: A database's file is damaged.
        """
        # PostgreSQL waits for a moment at which such a transaction can run to its end without a conflict.
        reading = {_WRITES: False, "postgresql_readonly": True, "postgresql_deferrable": True}
        try:
            with (
                self._engine.execution_options(**reading).begin() as source,
                target._engine.execution_options(**{_WRITES: True}).begin() as copy,
            ):
                if target_table := _find_rows(copy):
                    raise WrongState(f"the database has {target_table} already: name an empty one")
                for table in Table.metadata.sorted_tables:
                    rows = source.execute(select(table).execution_options(yield_per=_ROWS_AT_ONCE)).mappings()
                    for part in rows.partitions():
                        copy.execute(insert(table), [dict(row) for row in part])
                _go_on_after_copied_ids(copy)
        except DBAPIError as error:
            raise _to_diredi_error(error) from None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite database in a file."""
    return f"sqlite:///{path}"


def _open(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
            raise InvalidInput(f"database_url {parsed!r} is neither sqlite nor postgresql: use one of these")
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, json_serializer=to_json)
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        return create_engine(parsed, json_serializer=to_json, isolation_level="SERIALIZABLE", pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidInput(f"database_url is not usable ({error}): it looks like postgresql://user@host/name") from None


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver's guess
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=20000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_sqlite(engine: Engine) -> None:
    """Raises CorruptData where pages of the file are not what SQLite has written."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise _damaged(engine, str(found))


def _damaged(engine: Engine | None, why: str) -> CorruptData:
    file = f" {engine.url.database}" if engine is not None else ""
    why = " ".join(why.split())[:200]
    return CorruptData(
        f"the cloud's database{file} is damaged ({why}): stop the cloud, keep the file, and put a backup in its place"
    )


def find_rows(url: str) -> str:
    """Return the name of a table of a database that has rows; empty where none has, or there is no database yet.

    Raises:
        InvalidInput: That is not the URL of a database.
        Unreachable: The database does not answer.
    """
    engine = _open(url)
    try:
        if engine.dialect.name == "sqlite":
            file = Path(engine.url.database or "")
            return str(file) if file.exists() else ""
        with engine.connect() as connection:
            return _find_rows(connection)
    except DBAPIError as error:
        raise _to_diredi_error(error) from None
    finally:
        engine.dispose()


def _find_rows(connection: Connection) -> str:
    known = set(inspect(connection).get_table_names())
    tables = [table for table in Table.metadata.sorted_tables if table.name in known]
    return next(
        (
            f"rows in its table {table.name}"
            for table in tables
            if connection.scalar(select(func.count()).select_from(table))
        ),
        "",
    )


def _go_on_after_copied_ids(connection: Connection) -> None:
    """Let PostgreSQL count on from ids that were copied; SQLite does by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in Table.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None and (last := connection.scalar(select(func.max(column)))):
            sequence = text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)")
            connection.execute(sequence, {"table": table.name, "column": column.name, "last": last})


def _alembic(connection: Connection) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _check_schema(connection: Connection) -> None:
    head = alembic.script.ScriptDirectory.from_config(_alembic(connection)).get_current_head()
    found = MigrationContext.configure(connection).get_current_revision()
    if found != head:
        raise WrongState(
            f"the database is of another version of the cloud ({found or 'none'}, and this one has {head}): start the "
            "cloud of this version once, or use the version that the cloud runs"
        )


def _migrate(connection: Connection) -> None:
    try:
        alembic.command.upgrade(_alembic(connection), "head")
    except alembic.util.exc.CommandError as error:
        raise WrongState(
            f"the database was made by a newer cloud ({error}): start that version, or restore a backup"
        ) from None


def _to_diredi_error(error: DBAPIError) -> Exception:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the rest says where it was met
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return _damaged(None, str(error.orig))
    if isinstance(error, DataError):  # such as a zero byte in a text: a request brought it, since we write none
        return InvalidInput("the request has a value that the database does not take: leave out zero bytes")
    if not isinstance(error, OperationalError):
        return error  # a defect of the cloud, not of the database: it keeps its type and its traceback
    # A quota or a limit on the size of files is an error of writing to SQLite, not a full disk.
    full = getattr(error.orig, "sqlstate", None) in _DISK_FULL or (
        getattr(error.orig, "sqlite_errorcode", None) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
    )
    if full:
        return NoRoom("the disk of the cloud's database is full, or does not take more: make room and try again")
    return Unreachable(f"the cloud's database does not answer ({str(error.orig).strip()}): check database_url")
