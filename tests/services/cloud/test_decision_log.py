"""The log of decisions: what a release is made of, and every kind of change to a decision is found."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cloud_server import audit
from cloud_server.audit import Report
from diredi.errors import Refused
from diredi.rpc.message_signature import sign_message
from diredi.rpc.v1 import fleet_pb2
from diredi.store.blobs import blob_path
from diredi.trust.merkle import Frontier
from tests.services.cloud.world import World, ask
from tests.support.command import command


def sql(*statements: str) -> Callable[[sqlite3.Connection], None]:
    def run(database: sqlite3.Connection) -> None:
        for statement in statements:
            assert database.execute(statement).rowcount > 0, statement

    return run


def rewrite(database: sqlite3.Connection) -> None:
    """What somebody does who knows how the log works: change a decision, its entry, and all after it."""
    database.execute("UPDATE transitions SET actor = 'operator/nobody' WHERE id = 1")
    tree = Frontier()
    rows = database.execute('SELECT "index", entry, details FROM log ORDER BY "index"').fetchall()
    for index, was, about in rows:
        entry, details = was, about
        if '"transition/1"' in was:
            details = json.dumps(json.loads(about) | {"actor": "operator/nobody"}, sort_keys=True)
            said = json.loads(was) | {"details": hashlib.sha256(details.encode()).hexdigest()}
            entry = json.dumps(said, sort_keys=True, separators=(",", ":"))
        peaks = json.dumps([peak.hex() for peak in tree.peaks])
        change = 'UPDATE log SET entry = ?, details = ?, peaks = ? WHERE "index" = ?'
        database.execute(change, (entry, details, peaks, index))
        tree = tree.add(entry.encode())


def forge_report(database: sqlite3.Connection) -> None:
    """A canary that has failed is said to have installed, by somebody without its key."""
    (details,) = database.execute("SELECT details FROM log WHERE subject LIKE 'install/%'").fetchone()
    said = json.loads(details)
    report = fleet_pb2.ReportInstallRequest.FromString(bytes.fromhex(said["report"]))
    report.reason = "made up"
    forged = json.dumps(said | {"report": report.SerializeToString(deterministic=True).hex()})
    database.execute("UPDATE log SET details = ? WHERE subject LIKE 'install/%'", (forged,))


CHANGES = [
    (sql("UPDATE transitions SET reason = 'because' WHERE id = 2"), "was changed: reason was"),
    (sql("UPDATE transitions SET figures = '{\"lam\": 1}' WHERE id = 3"), "was changed: figures was"),
    (sql("DELETE FROM transitions WHERE id = 4"), "the row of transition/4 was removed"),
    (sql("UPDATE releases SET status = 'released' WHERE version = 2"), "its status was canary and is released"),
    (sql("UPDATE releases SET canaries = '[]' WHERE version = 2"), "release 2 was changed: canaries"),
    (sql('UPDATE releases SET rollout = \'{"steps": [1, 100], "step": 0, "paused": ""}\''), "its rollout was"),
    (
        sql("UPDATE models SET onnx = json_set(onnx, '$.digest', 'sha256:00') WHERE onnx IS NOT NULL"),
        "changed: file was",
    ),
    (sql("UPDATE parts SET gap = json_set(gap, '$.tutor_gap.blob.digest', 'x')"), "release 2 was changed: gaps"),
    (sql("UPDATE parts SET certificate = 'another'"), "release 2 was changed: gaps"),
    (sql("UPDATE log SET entry = replace(entry, 'fleet', 'fleed')"), "was changed"),
    (sql("UPDATE log SET details = replace(details, 'operator', 'observer')"), "the details of entry"),
    (sql('DELETE FROM log WHERE "index" = 2'), "entries 2 to 2 were removed"),
    (sql('DELETE FROM log WHERE "index" = (SELECT max("index") FROM log)'), "missing at the end"),
    (forge_report, "is not signed by it"),
    (rewrite, "is not what it was at"),
]


@pytest.mark.slow
async def test_what_a_release_is_made_of_is_told_and_no_decision_is_changed_unnoticed(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = tmp_path / "head.json"
    async with world.cloud() as cloud:
        site, operator, device = world.site(), world.operator(), world.device()
        await device.register()
        task = await site.extracting(operator, "second")
        await site.extract(task)
        await operator.until(task.cycle_id, "CANARY")
        told = await device.until(2)
        lie = fleet_pb2.ReportInstallRequest(device="cam-1", release_version=1, outcome=1, digest=told.onnx.digest)
        sign_message(lie, device.credentials)
        lie.release_version = 2
        with pytest.raises(Refused, match="not by the key of"):
            await ask(device.stub.ReportInstall, lie)
        await device.report(2)
        who = ["--cloud", world.address, "--identity", world.identities / "alice"]
        code, (second, first), _ = await command(capsys, "model", "lineage", "2", *who)
        assert code == 0
        (gap,) = second["gaps"]
        assert gap["site"] == "site-1"
        assert blob_path(world.state_dir / "blobs", gap["tutor_gap"]).exists()
        assert (second["parents"], second["base_student"], second["cycle"]) == ([1], first["student"], task.cycle_id)
        assert first["parents"] == []
        await cloud._fleet.sign_head()
        assert (await command(capsys, "audit", "head", "--out", kept, *who))[0] == 0
        flags = ["--state-dir", world.state_dir, "--identity", world.identities / "cloud"]
        code, report, _ = await command(capsys, "audit", "verify", *flags, "--head", kept)
        assert (code, report["findings"], report["releases"]) == (0, [], 2)
        assert report["heads"] == 2
    database = world.state_dir / "cloud.sqlite"
    with closing(sqlite3.connect(database)) as good:
        good.execute("PRAGMA journal_mode = DELETE")
    shutil.copy(database, tmp_path / "good.sqlite")

    def report_after(change: Callable[[sqlite3.Connection], None], *heads: bytes) -> Report:
        shutil.copy(tmp_path / "good.sqlite", database)
        with closing(sqlite3.connect(database)) as bad:
            change(bad)
            bad.commit()
        return audit.verify(world.config(), heads)

    assert report_after(lambda _: None).findings == ()
    for change, found in CHANGES:
        findings = report_after(change).findings
        assert any(found in finding for finding in findings), (found, findings)
    # Whoever has the cloud's machine also has its head; the one that was kept, and the release that was signed, remain.
    (world.state_dir / "releases" / "loghead.json").unlink()
    assert any("is not what it was at" in finding for finding in report_after(rewrite, kept.read_bytes()).findings)
    assert any("signed with the release" in finding for finding in report_after(rewrite).findings)
