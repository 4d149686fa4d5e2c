"""A site holds a release and opens windows, and its devices obey: over real gRPC, by the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from diredi.consent import ConsentEntry, sign_entry
from diredi.errors import InvalidInput, Refused
from diredi.rpc.client import connect
from diredi.rpc.server import start_server
from diredi.trust.identity import Identity, Role
from diredi_cli.main import run
from edge_node.site_rules import SiteRules, UpdateWait
from tests.support.command import command
from tests.support.pki import Pki
from tests.support.waiting import until
from user_domain.config import UserDomainConfig
from user_domain.consent import ConsentJournal
from user_domain.servicer import LocalServicer, SiteParts
from user_domain.update_rules import UpdateRules
from user_domain.update_windows import Window

SITE = Identity(Role.SITE, "site-1")
BERLIN = ZoneInfo("Europe/Berlin")


def rules_of(pki: Pki, folder: Path, *windows: str, zone: str = "Europe/Berlin") -> UpdateRules:
    return UpdateRules(ConsentJournal(folder / "consent.jsonl", pki.credentials("site", "site-1")), windows, zone)


@asynccontextmanager
async def site_with(pki: Pki, rules: UpdateRules) -> AsyncIterator[str]:
    none = cast("Any", None)
    parts = SiteParts("site-1", none, none, none, none, none, none, rules, none)
    server = await start_server(pki.credentials("site", "site-1"), "127.0.0.1:0", [LocalServicer(parts)])
    yield server.address
    await server.stop(0)


async def test_a_device_obeys_what_its_site_holds_also_while_the_site_is_away_and_after_a_restart(
    tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    own = pki.issue("site", "site-1")
    camera = pki.credentials("device", "camera-1", "site-1")
    device = SiteRules(tmp_path / "rules.json", every_s=0.05, has_site=True)
    assert device.wait_for(7) is UpdateWait.WINDOW, "the site was not asked yet"
    async with site_with(pki, rules_of(pki, tmp_path)) as address:
        async with connect(address, camera, server=SITE) as channel:
            asking = asyncio.create_task(device.run(channel))
            await until(lambda: device.wait_for(7) is UpdateWait.NONE)

            assert await asyncio.to_thread(run, ["site", "hold", address, "7", "--identity", str(own)]) == 0
            await until(lambda: device.wait_for(7) is UpdateWait.HELD)
            assert device.wait_for(8) is UpdateWait.NONE
            _, shown, _ = await command(capsys, "site", "windows", address, "--identity", own)
            assert shown["held"] == [7] and not shown.get("has_windows")
            assert await asyncio.to_thread(run, ["site", "hold", address, "x", "--identity", str(own)]) != 0
            asking.cancel()
        other = pki.issue("device", "camera-9", "site-9")
        code, _, error = await command(capsys, "site", "windows", address, "--identity", other)
        assert code != 0 and "cannot be reached" in error, "another site's device asks its own site"
    again = SiteRules(tmp_path / "rules.json", every_s=0.05, has_site=True)
    async with connect(address, camera, server=SITE) as channel:
        asking = asyncio.create_task(again.run(channel))
        await until(lambda: again.wait_for(8) is UpdateWait.NONE)
        assert again.wait_for(7) is UpdateWait.HELD
        asking.cancel()

    kept = rules_of(pki, tmp_path)
    assert kept.held() == {7}
    async with site_with(pki, kept) as address:
        assert await asyncio.to_thread(run, ["site", "hold", address, "all", "--identity", str(own)]) == 0
        assert await asyncio.to_thread(run, ["site", "unhold", address, "7", "--identity", str(own)]) == 0
    assert rules_of(pki, tmp_path).held() == {0}


def test_nobody_but_the_site_holds_a_release(
    tmp_path: Path,
    pki: Pki,
) -> None:
    rules = rules_of(pki, tmp_path)

    def entry(**more: Any) -> ConsentEntry:
        usual = {"event": "held", "site": "site-1", "cycle_id": "", "what": {"release": 7}, "by": "a person"}
        return ConsentEntry.model_validate({**usual, "at": datetime.now(UTC), **more})

    for thief in (pki.credentials("site", "site-2"), pki.anew("site", "site-1"), pki.credentials("cloud", "cloud")):
        with pytest.raises(Refused):
            rules.decide(sign_entry(entry(), thief))
    own = pki.credentials("site", "site-1")
    for wrong in ({"what": {}}, {"what": {"release": -1}}, {"event": "approved"}, {"cycle_id": "c"}):
        with pytest.raises(InvalidInput):
            rules.decide(sign_entry(entry(**wrong), own))
    assert rules.held() == set()
    rules.decide(sign_entry(entry(), own))
    rules.decide(sign_entry(entry(), own))
    assert len((tmp_path / "consent.jsonl").read_bytes().split()) > 0 and rules.held() == {7}
    assert len(rules.journal.find("", "held")) == 1, "the same again adds nothing"


def test_windows_are_in_local_time_over_midnight_and_through_the_change_of_the_clock(tmp_path: Path, pki: Pki) -> None:
    rules = rules_of(pki, tmp_path, "sat 22:00-05:00")
    before = datetime(2026, 3, 27, 12, tzinfo=UTC)  # on Sunday, the 29th, 02:00 becomes 03:00 in Berlin
    (begins, ends), *_, last = rules.spans(before)
    assert (begins.astimezone(UTC).hour, ends.astimezone(UTC).hour) == (21, 3)
    assert last[0].astimezone(UTC).hour == 20, "in summer an hour earlier"
    inside = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert rules.spans(inside)[0] == (begins, ends), "one that is open now is told, too"
    assert len(rules.spans(before)) in (4, 5)
    assert Window.parse("00:00-00:00").days == frozenset(range(7))
    assert Window.parse("fri-mon 01:00-02:00").days == {4, 5, 6, 0}


@pytest.mark.parametrize("text", ["22-5", "25:00-05:00", "moo 22:00-05:00", "22:00", "mon,tue 22:00-05:00", ""])
def test_a_window_that_is_none_is_refused_before_anything_starts(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no window: write"):
        config(tmp_path, update_windows=(text,), time_zone="Europe/Berlin")


@pytest.mark.parametrize(("zone", "said"), [("", "name the time_zone"), ("Mars/Olympus", "is no time zone")])
def test_windows_need_a_time_zone_that_there_is(zone: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        config(tmp_path, update_windows=("22:00-05:00",), time_zone=zone)


def config(folder: Path, **more: Any) -> UserDomainConfig:
    return UserDomainConfig(site="site-1", cloud="c:1", identity=folder, state_dir=folder, data="scenes:site-1", **more)


async def test_a_device_waits_for_the_window_that_its_site_has_named(tmp_path: Path, pki: Pki) -> None:
    now = datetime.now(BERLIN)
    shut = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    open_ = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    for windows, wait in (((shut,), UpdateWait.WINDOW), ((shut, open_), UpdateWait.NONE)):
        changed = asyncio.Event()
        device = SiteRules(tmp_path / f"{wait}.json", every_s=0.05, has_site=True)
        device.on_change = changed.set
        camera = pki.credentials("device", "camera-1", "site-1")
        async with (
            site_with(pki, rules_of(pki, tmp_path, *windows)) as address,
            connect(address, camera, server=SITE) as channel,
        ):
            asking = asyncio.create_task(device.run(channel))
            await changed.wait()
            assert device.wait_for(1) is wait
            asking.cancel()
