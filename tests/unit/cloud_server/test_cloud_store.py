"""One contract for both databases: what the cloud records is there again, whole, in order, and only once."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import alembic.command
import alembic.config
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url

from cloud_server.cycles import transitions
from cloud_server.cycles.waits import count_waits
from cloud_server.entities import Install, ModelKind, Outcome, Progress, ReleaseStatus, Vitals
from cloud_server.states import State
from cloud_server.store import Repository, schema
from cloud_server.store.database import Database, sqlite_url
from cloud_server.store.schema import Table
from diredi.errors import CorruptData, InvalidInput, NoRoom, NotFound, Unreachable, WrongState
from tests.support.waiting import PATIENCE_S
from tests.unit.cloud_server.samples import (
    LABELS,
    NEW_STUDENT,
    NOON,
    STUDENT,
    TUTOR,
    digest,
    first_release,
    later,
    manifest,
    model,
)

A_CYCLE_OF_THE_FIRST_TABLES = """
    INSERT INTO cycles (id, site, request_id, state, approved, recipe, base_tutor_id, base_student_id, updated_tutor_id,
                        updated_student_id, release_version, gap, progressed_at, created)
    VALUES (:id, 'site-1', :id, :state, true, '{}', '', '', '', '', 0, :gap, :now, :now)
"""


def alembic_config(connection: Connection) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def write(database: Database, work):
    return database.transact(work, writes=True)


def read(database: Database, work):
    return database.transact(work, writes=False)


class TestStore:
    @pytest.fixture(autouse=True)
    def _with_first_release(self, database: Database) -> None:
        write(database, first_release)

    def start(self, database: Database, request_id: str = "r1"):
        return write(
            database, lambda r: transitions.start_cycle(r, ["site-1"], request_id, {"lam": 0.5}, "operator/a", NOON)
        )

    def test_what_is_stored_outlives_the_process(self, database: Database, database_url: str) -> None:
        cycle = self.start(database)
        write(database, lambda r: r.cycles.record_progress(cycle.id, Progress(step="tutor-2", fraction=0.5), later(3)))
        before = read(database, lambda r: r.cycles.get(cycle.id))
        database.close()
        again = Database(database_url)
        try:
            assert read(again, lambda r: r.cycles.get(cycle.id)) == before
            assert before.history[0].at == NOON
            assert before.progressed_at == later(3)
            assert read(again, lambda r: r.models.get(TUTOR.id)) == TUTOR
            assert read(again, lambda r: r.models.get(STUDENT.id)) == STUDENT
        finally:
            again.close()

    def test_a_transaction_that_fails_changes_nothing(self, database: Database) -> None:
        cycle = self.start(database)

        def half(r: Repository) -> None:
            r.cycles.move(cycle.id, State.OFFERED, NOON, "site/site-1", "offered")
            raise NotFound("something else")

        with pytest.raises(NotFound):
            write(database, half)
        assert read(database, lambda r: r.cycles.get(cycle.id)) == cycle

    def test_a_transition_that_the_table_forbids_is_not_recorded(self, database: Database) -> None:
        cycle = self.start(database)
        with pytest.raises(WrongState):
            write(database, lambda r: r.cycles.move(cycle.id, State.RELEASED, NOON, "cloud", "why not"))
        assert read(database, lambda r: r.cycles.get(cycle.id)).history == cycle.history

    def test_each_transition_says_who_when_why_and_by_which_metrics(self, database: Database) -> None:
        cycle = self.start(database)
        metrics = {"map50": 0.25, "bad": float("nan")}
        write(database, lambda r: r.cycles.move(cycle.id, State.OFFERED, later(5), "site/site-1", "offered", metrics))
        last = read(database, lambda r: r.cycles.get(cycle.id)).history[-1]
        assert (last.state, last.at, last.actor, last.reason) == (State.OFFERED, later(5), "site/site-1", "offered")
        assert last.metrics == {"map50": 0.25, "bad": None}  # what is no number has no place in JSON

    def test_history_is_in_the_order_in_which_it_happened(self, database: Database) -> None:
        cycle = self.start(database)
        write(database, lambda r: transitions.approve(r, cycle.id, "site-1", NOON))
        write(
            database, lambda r: transitions.report_progress(r, cycle.id, "site-1", Progress(step="s", fraction=0), NOON)
        )
        write(database, lambda r: transitions.decline(r, cycle.id, "site-1", "no", NOON))
        states = [t.state for t in read(database, lambda r: r.cycles.get(cycle.id)).history]
        assert states == [State.REQUESTED, State.OFFERED, State.EXTRACTING, State.DECLINED]

    def test_one_request_id_is_one_cycle_however_many_ask_at_once(self, database: Database) -> None:
        with ThreadPoolExecutor(6) as pool:
            cycles = list(pool.map(lambda _: self.start(database), range(6)))
        assert len({cycle.id for cycle in cycles}) == 1
        assert len(read(database, lambda r: r.cycles.recent())) == 1

    def test_a_site_has_one_cycle_under_way_however_many_ask_at_once(self, database: Database) -> None:
        def ask(request_id: str) -> bool:
            try:
                self.start(database, request_id)
            except WrongState:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(ask, "abcdef")).count(True) == 1

    def test_class_ids_stay_stable_and_are_given_once_however_many_propose_at_once(self, database: Database) -> None:
        names = [["forklift", f"crane-{i % 3}", "car"] for i in range(9)]
        with ThreadPoolExecutor(6) as pool:
            given = list(pool.map(lambda n: write(database, lambda r: r.classes.assign_ids(n, "c1", NOON)), names))
        final = read(database, lambda r: r.classes.labels())
        assert final is not None
        assert final.names[:2] == LABELS.names
        assert sorted(final.names[2:]) == ["crane-0", "crane-1", "crane-2", "forklift"]
        assert all(final.extends(labels) for labels in given)
        assert final.version == max(labels.version for labels in given) > LABELS.version

    def test_the_same_model_twice_is_one_model(self, database: Database) -> None:
        write(database, lambda r: r.models.add(TUTOR.model_copy(update={"parent_id": "another story"})))
        assert read(database, lambda r: r.models.get(TUTOR.id)).parent_id == ""
        assert len(read(database, lambda r: r.models.all(ModelKind.TUTOR))) == 1

    def test_a_model_is_found_by_the_beginning_of_its_digest_when_that_is_enough(self, database: Database) -> None:
        assert read(database, lambda r: r.models.get("a" * 8)) == TUTOR
        for wrong in ("a" * 7, "9" * 8, "%" * 8, ""):
            with pytest.raises(NotFound):
                read(database, lambda r, wrong=wrong: r.models.get(wrong))
        twin = model("a").model_copy(update={"id": digest("a")[:-1] + "b"})
        write(database, lambda r: r.models.add(twin))
        with pytest.raises(WrongState, match="more digits"):
            read(database, lambda r: r.models.get("a" * 8))
        assert read(database, lambda r: r.models.get(TUTOR.id)) == TUTOR

    def test_versions_of_releases_only_rise_and_a_withdrawn_one_is_not_current(self, database: Database) -> None:
        def add(r: Repository):
            r.models.add(NEW_STUDENT)
            return r.releases.add(NEW_STUDENT, TUTOR.id, ReleaseStatus.CANARY, ["cam-1"], "c1", NOON)

        second = write(database, add)
        assert (second.version, second.canaries) == (2, ("cam-1",))
        current = read(database, lambda r: r.releases.current())
        assert current is not None
        assert current.version == 1
        write(database, lambda r: r.releases.set_status(2, ReleaseStatus.WITHDRAWN, NOON))
        assert write(database, add).version == 3

    def test_an_installation_that_is_reported_twice_is_one_entry(self, database: Database) -> None:
        write(database, lambda r: r.devices.record_contact("cam-1", "site-1", NOON, Vitals(release_version=1)))
        install = Install(release_version=2, outcome=Outcome.INSTALLED, at=NOON)
        assert write(database, lambda r: r.devices.record_install("site-1/cam-1", install))
        assert not write(database, lambda r: r.devices.record_install("site-1/cam-1", install))
        write(database, lambda r: r.devices.record_contact("cam-1", "site-2", NOON, Vitals(release_version=1)))
        (device,) = read(database, lambda r: r.devices.of_site("site-1"))
        assert device.installs == (install,)
        assert device.release_version == 2
        assert read(database, lambda r: r.devices.count_by_site()) == {"site-1": 1, "site-2": 1}

    def test_names_from_outside_are_values_and_never_commands(self, database: Database) -> None:
        name = "x'; DROP TABLE cycles; --"
        with pytest.raises(NotFound):
            read(database, lambda r: r.cycles.get(name))
        with pytest.raises(NotFound):
            read(database, lambda r: r.models.get(name))
        assert read(database, lambda r: r.cycles.recent(name)) == []

    def test_the_migrations_make_the_very_tables_that_the_code_expects(
        self, database: Database, database_url: str
    ) -> None:
        url = make_url(database_url)
        engine = create_engine(url.set(drivername="postgresql+psycopg") if "postgres" in url.drivername else url)
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        engine.dispose()

    def test_a_database_from_before_there_were_several_sites_keeps_its_cycles(
        self, database: Database, database_url: str
    ) -> None:
        """Back to the first tables, cycles put there as that cloud did, and opened by this one."""
        database.close()
        url = make_url(database_url)
        engine = create_engine(url.set(drivername="postgresql+psycopg") if "postgres" in url.drivername else url)
        gap = manifest("c-uploaded").model_dump_json(exclude={"scores", "style", "signature"})
        with engine.begin() as connection:
            alembic.command.downgrade(alembic_config(connection), "0001")
            for state, manifest_json in (("EXTRACTING", None), ("DECLINED", None), ("UPLOADED", gap), ("FAILED", gap)):
                values = {
                    "id": f"c-{state.lower()}",
                    "state": state,
                    "gap": manifest_json,
                    "now": NOON.replace(tzinfo=None),
                }
                connection.execute(text(A_CYCLE_OF_THE_FIRST_TABLES), values)
        engine.dispose()
        again = Database(database_url)
        try:
            assert read(again, lambda r: r.cycles.get("c-extracting")).part("site-1").state is State.EXTRACTING
            assert read(again, lambda r: r.cycles.get("c-declined")).part("site-1").state is State.DECLINED
            uploaded = read(again, lambda r: r.cycles.get("c-uploaded"))
            assert uploaded.gaps == (("site-1", manifest("c-uploaded")),)
            assert read(again, lambda r: r.cycles.get("c-failed")).part("site-1").state is State.UPLOADED
            assert [c.id for c in read(again, lambda r: r.cycles.unfinished("site-1"))] == [
                "c-extracting",
                "c-uploaded",
            ]
            declined = write(again, lambda r: transitions.decline(r, "c-extracting", "site-1", "no", later(1)))
            assert declined.state is State.DECLINED
        finally:
            again.close()

    def test_what_was_there_before_there_were_scopes_is_the_fleets(self, database: Database, database_url: str) -> None:
        """Back to the tables of before and up again; an older cloud is not shown what was one site's."""
        cycle = self.start(database)
        own = write(
            database,
            lambda r: transitions.start_cycle(r, ["site-2"], "own", {}, "operator/a", NOON, "site"),
        )
        write(database, lambda r: r.classes.propose(own.scope, LABELS, ["crane"], own.id, NOON))
        write(database, lambda r: r.models.add(NEW_STUDENT.model_copy(update={"cycle_id": own.id})))
        write(
            database,
            lambda r: r.releases.add(NEW_STUDENT, TUTOR.id, ReleaseStatus.RELEASED, (), own.id, NOON, own.scope),
        )
        write(database, lambda r: r.groups.set("north", ["site-1"]))
        database.close()
        url = make_url(database_url)
        engine = create_engine(url.set(drivername="postgresql+psycopg") if "postgres" in url.drivername else url)
        with engine.begin() as connection:
            alembic.command.downgrade(alembic_config(connection), "0002")
            names = connection.execute(text("SELECT name FROM classes ORDER BY id")).scalars().all()
        engine.dispose()
        assert tuple(names) == LABELS.names
        again = Database(database_url)
        try:
            assert [c.id for c in read(again, lambda r: r.cycles.recent())] == [cycle.id]
            assert read(again, lambda r: r.cycles.get(cycle.id)) == cycle
            assert [(r.version, r.scope) for r in read(again, lambda r: r.releases.all())] == [(1, "fleet")]
            assert {m.id for m in read(again, lambda r: r.models.all())} == {TUTOR.id, STUDENT.id}
            labels = read(again, lambda r: r.classes.labels())
            assert labels is not None
            assert labels.names == LABELS.names
            assert read(again, lambda r: r.groups.by_site()) == {}
        finally:
            again.close()

    def test_a_database_of_a_newer_cloud_is_left_alone(self, database: Database, database_url: str) -> None:
        url = make_url(database_url)
        engine = create_engine(url.set(drivername="postgresql+psycopg") if "postgres" in url.drivername else url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()
        with pytest.raises(WrongState, match="newer"):
            Database(database_url)

    async def test_readers_go_on_while_somebody_writes(self, database: Database) -> None:
        before = await database.read(lambda r: r.releases.all())

        def nested(r: Repository):
            r.sites.record_contact("site-3", NOON)
            return read(database, lambda other: other.sites.all())

        seen = await asyncio.wait_for(database.write(nested), PATIENCE_S)
        assert [site.name for site in seen] == ["site-1", "site-2"]
        assert await database.read(lambda r: r.releases.all()) == before


def test_all_rows_go_from_one_kind_of_database_to_the_other_and_back_and_ids_count_on(
    database: Database, tmp_path: Path
) -> None:
    source, back = Database(sqlite_url(tmp_path / "source.sqlite")), Database(sqlite_url(tmp_path / "back.sqlite"))
    try:
        write(source, first_release)
        cycle = write(source, lambda r: transitions.start_cycle(r, ["site-1"], "r1", {"lam": 0.5}, "operator/a", NOON))
        write(source, lambda r: r.devices.record_contact("cam-1", "site-1", NOON, Vitals(sources={"yard": "away"})))
        source.copy_to(database)
        write(database, lambda r: transitions.decline(r, cycle.id, "site-1", "no", later(1)))
        database.copy_to(back)
        assert [t.reason for t in read(back, lambda r: r.cycles.get(cycle.id)).history][-1] == "no"
        assert read(back, lambda r: r.cycles.get(cycle.id)) == read(database, lambda r: r.cycles.get(cycle.id))
        assert read(back, lambda r: r.devices.of_site()) == read(source, lambda r: r.devices.of_site())
        assert read(back, lambda r: r.models.get(STUDENT.id)) == read(source, lambda r: r.models.get(STUDENT.id))
        with pytest.raises(WrongState, match="already: name an empty one"):
            source.copy_to(database)
    finally:
        source.close()
        back.close()


def test_a_url_that_is_none_is_refused_with_the_remedy() -> None:
    for url in ("nonsense", "mysql://root@host/x", "oracle://x"):
        with pytest.raises(InvalidInput, match="database_url"):
            Database(url)


def test_a_database_that_does_not_answer_is_named(tmp_path) -> None:
    with pytest.raises(Unreachable, match="database"):
        Database(f"postgresql://nobody@/nothing?host={tmp_path}")
    with pytest.raises(Unreachable, match="database"):
        Database(sqlite_url(tmp_path / "no" / "such" / "folder.sqlite"))


def test_a_full_disk_is_said_and_loses_nothing(tmp_path) -> None:
    def only_few_pages(connection, _):
        connection.execute("PRAGMA max_page_count=64")

    event.listen(Engine, "connect", only_few_pages)
    try:
        database = Database(sqlite_url(tmp_path / "cloud.sqlite"))
        write(database, first_release)
        with pytest.raises(NoRoom, match="full"):
            write(database, lambda r: r.facts.put("large", {"text": "x" * 2**20}))
        assert read(database, lambda r: r.facts.get("large")) is None
        write(database, lambda r: r.facts.put("small", {"text": "x"}))
        assert read(database, lambda r: r.facts.get("small")) == {"text": "x"}
        database.close()
    finally:
        event.remove(Engine, "connect", only_few_pages)


def test_a_database_with_a_page_of_noise_is_said_at_the_start_with_the_remedy(tmp_path) -> None:
    good = tmp_path / "good.sqlite"
    database = Database(sqlite_url(good))
    write(database, first_release)
    database.close()
    with closing(sqlite3.connect(good)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = good.read_bytes()
    size, noise = 4096, random.Random(0)
    for page in range(0, len(whole) // size, 5):
        bad = tmp_path / f"bad-{page}.sqlite"
        bad.write_bytes(whole[: page * size] + noise.randbytes(size) + whole[(page + 1) * size :])
        with pytest.raises(CorruptData, match=r"damaged.*backup"):
            Database(sqlite_url(bad))
    again = Database(sqlite_url(good))
    assert read(again, lambda r: r.releases.all())
    again.close()


def test_a_wait_is_what_was_counted_whatever_the_clock_says(tmp_path) -> None:
    """Eight days on, a year back, and over a restart; a sign of progress begins it anew."""
    database = Database(sqlite_url(tmp_path / "cloud.sqlite"))
    write(database, first_release)
    cycle = write(database, lambda r: transitions.start_cycle(r, ["site-1"], "r1", {}, "operator/a", NOON))
    write(database, lambda r: count_waits(r, NOON, 0))
    for now, elapsed, waited in ((later(9), 9, 9), (later(8 * 86_400), 1, 10), (later(-365 * 86_400), 2, 12)):
        (seen,) = write(database, lambda r, now=now, elapsed=elapsed: count_waits(r, now, elapsed))
        assert (now - seen.progressed_at).total_seconds() == waited
        assert (now - seen.part("site-1").progressed_at).total_seconds() == waited
    database.close()
    database = Database(sqlite_url(tmp_path / "cloud.sqlite"))
    (seen,) = write(database, lambda r: count_waits(r, NOON, 0))
    assert (NOON - seen.progressed_at).total_seconds() == 12
    write(database, lambda r: r.cycles.change_part(cycle.id, "site-1", later(20)))
    (seen,) = write(database, lambda r: count_waits(r, NOON, 5))
    assert seen.progressed_at == NOON
    database.close()


def test_cycles_are_in_the_order_in_which_they_were_started_though_the_clock_went_back(tmp_path) -> None:
    database = Database(sqlite_url(tmp_path / "cloud.sqlite"))
    write(database, first_release)
    ids = []
    for number in range(4):
        now = later(-number * 86_400 * 90)
        cycle = write(
            database,
            lambda r, number=number, now=now: transitions.start_cycle(
                r, ["site-1"], f"r{number}", {}, "operator/a", now
            ),
        )
        ids.append(cycle.id)
        write(database, lambda r, id=cycle.id: r.cycles.move(id, State.FAILED, NOON, "cloud", "no"))
    assert [cycle.id for cycle in read(database, lambda r: r.cycles.recent("site-1"))] == ids[::-1]
    assert [cycle.id for cycle in read(database, lambda r: r.cycles.recent("site-1", after=ids[2]))] == [ids[1], ids[0]]
    database.close()
