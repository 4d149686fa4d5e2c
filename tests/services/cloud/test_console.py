"""The operator's console: who may do what, JSON for programs, and what an operator does in a real browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import expect
from sqlalchemy import update

from cloud_server.app import Cloud
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.schema import DeviceRow
from diredi.errors import Refused
from diredi.rpc.v1.pages_pb2 import OpenPagesRequest
from diredi.rpc.v1.pages_pb2_grpc import PageServiceStub
from diredi.trust import ca
from diredi.trust.enrolment import Token
from diredi.trust.identity import Identity, Role
from tests.services.cloud.filled_fleet import HOSTILE, add_cycle, fill
from tests.services.cloud.world import World, ask
from tests.support.browser import chromium, tab_of
from tests.support.fuzz import ask_nonsense
from tests.support.mail_server import mail_server, web_hook
from tests.support.net import free_port
from tests.support.prometheus import documented, values_of
from tests.support.visitor import Visitor
from tests.support.waiting import until

PAGES = (
    "/fleet", "/cycles", "/cycles/cycle-0001", "/rollouts", "/models", "/sites", "/sites/site-01", "/audit",
    "/audit?kind=rollout", "/audit/verification", "/cycles/comparison?first=cycle-0001&second=cycle-0001",
)  # fmt: skip


@asynccontextmanager
async def console(world: World) -> AsyncIterator[tuple[Cloud, str]]:
    """A cloud with its console, and the console's host:port."""
    host = f"127.0.0.1:{free_port()}"
    world.settings |= {"pages": {"listen": host}}
    async with world.cloud() as cloud:
        yield cloud, host


async def link(world: World, who: str) -> str:
    return str((await ask(PageServiceStub(world.channel(who)).OpenPages, OpenPagesRequest(person="maria"), 40)).url)


async def visitor(world: World, host: str, who: str) -> Visitor:
    found = Visitor(host)
    await found.log_in(await link(world, who))
    return found


def make_own_authority(folder: Path, world: World) -> Path:
    """Give a world an authority of its own, which a test may use up."""
    authority, world.identities = folder / "ca", folder / "pki"
    ca.init(authority)
    people = ((Role.OPERATOR, "alice"), (Role.OPERATOR, "bob"), (Role.ADMIN, "anna"))
    for role, name in ((Role.CLOUD, "cloud"), *people):
        ca.issue(authority, role, name, ["127.0.0.1"] if role is Role.CLOUD else [], world.identities / name)
    shutil.rmtree(world.state_dir / "releases", ignore_errors=True)
    return authority


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.slow
async def test_a_viewer_sees_everything_and_changes_nothing_and_strangers_see_nothing(world: World) -> None:
    async with console(world) as (cloud, host):
        cloud.context.database.transact(lambda r: fill(r, now(), 30, 3), writes=True)
        cloud.context.database.transact(lambda r: add_cycle(r, 1, now(), State.OFFERED, HOSTILE), writes=True)
        with pytest.raises(Refused, match="the role viewer or operator or admin"):
            await link(world, "site-1")
        vera, alice, stranger = await visitor(world, host, "vera"), await visitor(world, host, "alice"), Visitor(host)
        for path in (*PAGES, "/openapi.json"):
            assert (await stranger.ask(path))[0] == 401, path
            status, _, body = await vera.ask(path)
            assert status == 200 and json.loads(body), path
            status, headers, page = await vera.ask(path, Accept="text/html")
            assert status == 200 and b"<img src=x" not in page, path
            assert "default-src 'none'" in headers["content-security-policy"]
            assert path == "/openapi.json" or b'action="/cycles' not in page, "no form for who cannot use it"
        request: dict[str, Any] = {"sites": ["site-01"], "scope": "site", "recipe": {"lam": 0.5}, "request_id": "r"}
        assert (await vera.ask("/cycles", request))[0] == 403
        assert (await vera.ask("/cycles/new"))[0] == 403
        assert (await alice.ask("/cycles", request, X_CSRF_Token="guess"))[0] == 403
        status, _, body = await alice.ask("/cycles", request | {"recipe": {"lam": "much"}})
        assert status == 400 and b"lam" in body
        assert (await alice.ask("/cycles", request | {"scope": "group:none"}))[0] == 400
        assert (await alice.ask("/cycles", request | {"sites": []}))[0] == 400
        started = [json.loads((await alice.ask("/cycles", request))[2])["cycle"]["id"] for _ in range(2)]
        assert len(set(started)) == 1, "the same request starts one cycle"
        cycle = json.loads((await vera.ask(f"/cycles/{started[0]}"))[2])
        assert (cycle["cycle"]["scope"], cycle["steps"][-1]["by"]) == ("site:site-01", "operator/alice")
        assert cycle["recipe"]["lam"] == 0.5
        pair = json.loads((await vera.ask(f"/cycles/comparison?first=cycle-0001&second={started[0]}"))[2])
        assert "0.5" in [row["second"] for row in pair["recipe"] if row["name"] == "lam"]
        models = json.loads((await vera.ask("/models"))[2])["models"]
        student = next(one["id"] for one in models if one["kind"] == "student" and one["map50"] is not None)
        assert (await vera.ask(f"/models/{student}/onnx"))[0] == 403
        status, headers, onnx = await alice.ask(f"/models/{student}/onnx")
        assert status == 200 and headers["content-disposition"].endswith('.onnx"') and onnx.startswith(b"onnx of")


async def test_no_nonsense_breaks_the_console(world: World) -> None:
    async with console(world) as (cloud, host):
        cloud.context.database.transact(lambda r: fill(r, now(), 30, 3), writes=True)
        cloud.context.database.transact(lambda r: add_cycle(r, 1, now(), State.RELEASED, HOSTILE), writes=True)
        asked, wrong = await ask_nonsense(await visitor(world, host, "alice"), 80, seed=1)
    assert asked >= 20 and wrong == []


async def test_prometheus_is_told_figures_of_the_fleet(world: World) -> None:
    host = f"127.0.0.1:{free_port()}"
    world.settings |= {"metrics": host}
    async with world.cloud() as cloud:
        cloud.context.database.transact(lambda r: fill(r, now(), 30, 3), writes=True)
        made = cloud.context.database.transact(lambda r: add_cycle(r, 1, now(), State.RELEASED, "site-1"), writes=True)
        prometheus = Visitor(host)

        async def answers() -> bool:
            try:
                return (await prometheus.ask("/metrics"))[0] == 200
            except OSError:
                return False

        await until(answers)
        values = values_of((await prometheus.ask("/metrics"))[2])
    assert {str(name) for name, *_ in values if str(name).startswith("diredi_")} == documented("diredi_cloud_")
    assert values["diredi_cloud_devices", ("site", HOSTILE)] == 10
    assert values["diredi_cloud_devices_in_trouble", ("trouble", "away")] == 1
    assert values["diredi_cloud_cycles", ("state", "RELEASED")] == 1
    assert values["diredi_cloud_latest_release", ("scope", "fleet")] == made.release_version
    assert values["diredi_cloud_log_entries",] > 5


async def test_alarms_are_told_once_by_webhook_and_mail_and_again_when_they_are_over(world: World) -> None:
    async with mail_server() as mails, web_hook() as hook:
        hook.refuses = True
        world.settings |= {
            "alarms": {
                "webhook": f"http://127.0.0.1:{hook.port}/token", "email_to": ["ops@example.com"],
                "email_from": "cloud@example.com", "smtp": f"127.0.0.1:{mails.port}", "smtp_tls": "none",
                "console": "https://console.example/", "every_s": 0.1, "after_s": 0,
            }
        }  # fmt: skip
        async with world.cloud() as cloud:
            cloud.context.database.transact(lambda r: fill(r, now(), 30, 3), writes=True)
            await until(lambda: len(mails.mails) > 0)
            hook.refuses = False
            await until(lambda: len(hook.posts) > 0)
        said = json.loads(hook.posts[0])
        away = next(one for one in said["began"] if one["text"] == "Devices away")
        assert away == {"text": "Devices away", "count": 1, "url": "https://console.example/fleet?state=away"}
        assert mails.mails[0]["To"] == "ops@example.com"
        assert "Devices away: 1" in mails.mails[0]["Subject"] and "?state=away" in mails.mails[0].get_content()
        async with world.cloud() as cloud:  # a restart tells nothing again
            back = update(DeviceRow).values(last_seen=now())
            cloud.context.database.transact(lambda r: r.devices._session.execute(back) and None, writes=True)
            await until(lambda: any("Devices away" in json.loads(post)["over"] for post in hook.posts))
        told = [one["text"] for post in hook.posts for one in json.loads(post)["began"]]
        assert len(told) == len(set(told))
        sent = json.loads((world.state_dir / "sent.json").read_text())["bytes"]
        assert sent["alarm/webhook"] >= sum(map(len, hook.posts)) and sent["alarm/email"] > 100


async def test_a_rollout_is_changed_by_who_may_and_the_log_says_by_whom(world: World) -> None:
    async with console(world) as (cloud, host):
        made = cloud.context.database.transact(lambda r: add_cycle(r, 1, now(), State.RELEASED, "site-1"), writes=True)
        version = made.release_version
        vera, alice = [await visitor(world, host, who) for who in ("vera", "alice")]
        path, pause = f"/rollouts/{version}", {"change": "pause", "reason": HOSTILE}
        assert (await vera.ask(path, pause))[0] == 403
        assert (await alice.ask(path, {"change": "stop"}))[0] == 400
        assert (await alice.ask("/rollouts/1", pause))[0] == 409
        assert (await alice.ask(f"/rollouts/{10**30}", pause))[0] == 400
        assert (await alice.ask(path, pause))[0] == 200
        (rollout,) = json.loads((await vera.ask("/rollouts"))[2])["rollouts"]
        assert (rollout["paused"], rollout["decisions"][0]["by"]) == (HOSTILE, "operator/alice")
        newest = json.loads((await vera.ask("/audit?kind=rollout"))[2])["entries"][0]
        assert (newest["by"], newest["what"]) == ("operator/alice", f"paused: {HOSTILE}")
        assert json.loads((await vera.ask("/audit/verification"))[2])["findings"] == []
        assert json.loads((await alice.ask(path, {"change": "abort"}))[2])["runs"] == version + 1
        assert json.loads((await vera.ask("/rollouts"))[2])["rollouts"] == []
        models = json.loads((await vera.ask("/models"))[2])
        made_of = {one["version"]: (one["gaps"], one["parents"]) for one in models["lineage"]}
        assert made_of == {1: ([], []), version: (["site-1"], [1]), version + 1: ([], [1])}
        student, note = models["lineage"][1]["student"], {"text": HOSTILE}
        assert models["classes"][f"class 1 {HOSTILE}"] == [None, pytest.approx(0.49), None]
        assert (await vera.ask(f"/models/{student}/notes", note))[0] == 403
        assert (await alice.ask(f"/models/{student}/notes", {"text": ""}))[0] == 400
        assert (await alice.ask(f"/models/{student}/notes", note))[0] == 200
        (kept,) = json.loads((await vera.ask(f"/models/{student}"))[2])["notes"]
        assert (kept["by"], kept["text"]) == ("operator/alice", HOSTILE)
        assert json.loads((await vera.ask("/audit/verification"))[2])["findings"] == []
        for path in ("/models", f"/models/{student}", "/audit", "/rollouts"):
            page = (await vera.ask(path, Accept="text/html"))[2].decode()
            assert "<img src=x" not in page and page.count('method="post"') == 1, f"{path}: only the log-out"


async def test_devices_are_filtered_and_sorted_by_the_database_and_one_has_its_history(world: World) -> None:
    async with console(world) as (cloud, host):
        cloud.context.database.transact(lambda r: fill(r, now(), 900, 3), writes=True)
        vera = await visitor(world, host, "vera")

        async def fleet(query: str) -> dict[str, Any]:
            status, _, body = await vera.ask(f"/fleet?{query}")
            assert status == 200, body
            return dict(json.loads(body))

        first = await fleet("")
        assert (first["fleet"], first["total"], first["pages"], len(first["devices"])) == (900, 900, 9, 100)
        assert {alarm["text"]: alarm["count"] for alarm in first["alarms"]} == {
            "Devices away": 17, "Last install failed": 3, "Failing on frames": 10, "Taking no updates": 3,
            "Certificates that end within 30 days": 5, "What they see has changed": 3,
        }  # fmt: skip
        last = await fleet("page=9&sort=name&descending=true")
        assert last["devices"][-1]["name"] == "camera-00000"
        failed = await fleet("state=failed+install")
        assert [device["name"] for device in failed["devices"]] == ["camera-00000", "camera-00401", "camera-00802"]
        healthy = await fleet("state=healthy&site=site-01&release=1&text=CAMERA&runtime=")
        assert healthy["total"] == 0, "the devices of site-01 run release 2"
        assert (await fleet("text=%25"))["total"] == 0, "a sign is a sign"
        for wrong in ("page=0", "sort=key", "release=x", "state=ill"):
            assert (await vera.ask(f"/fleet?{wrong}"))[0] == 400, wrong
        for key in ("site-02/camera-00802", f"{HOSTILE}/camera-00401"):
            _, _, body = await vera.ask(f"/fleet/devices/{quote(key)}")
            installs = [(one["release"], one["outcome"]) for one in json.loads(body)["installs"]]
            assert installs == [(2, "failed"), (1, "installed")]
        assert (await vera.ask("/fleet/devices/site-02/none"))[0] == 404


async def test_an_admin_lets_a_site_in_and_out_and_nobody_else_can(tmp_path: Path, world: World) -> None:
    world.settings |= {"authority": make_own_authority(tmp_path, world)}
    async with console(world) as (cloud, host):
        cloud.context.database.transact(lambda r: fill(r, now(), 30, 3), writes=True)
        anna, bob = [await visitor(world, host, who) for who in ("anna", "bob")]
        wanted = {"identity": "site/site-9", "hosts": "10.0.0.9, nine.local", "cloud": "updates.example.com:443"}
        assert (await bob.ask("/tokens", wanted))[0] == 403
        for wrong in ({"identity": "cloud/cloud"}, {"identity": "site/a b"}, {"days": 31}):
            assert (await anna.ask("/tokens", wanted | wrong))[0] == 400, wrong
        token = Token.decode(json.loads((await anna.ask("/tokens", wanted))[2])["token"])
        assert token.cloud == "updates.example.com:443" and token.credentials.identity.role is Role.ENROLMENT
        status, _, page = await anna.ask("/tokens", wanted, Accept="text/html")
        assert status == 200 and b'class="qr"' in page and b" style=" not in page
        assert (await bob.ask("/retired/site/site-9", {"confirm": "site/site-9"}))[0] == 403
        assert (await anna.ask("/retired/site/site-9", {"confirm": "site-9"}))[0] == 400
        status, _, body = await anna.ask("/retired/site/site-9", {"confirm": "site/site-9"})
        assert (status, json.loads(body)) == (200, {"identities": ["site/site-9"]})
        site = json.loads((await bob.ask("/sites/site-01"))[2])
        assert (site["site"]["devices"], site["quotas"][0]["most"], site["can_enrol"]) == (10, 1000, False)
        assert (await bob.ask("/sites/none"))[0] == 404
        assert len(json.loads((await bob.ask("/sites"))[2])["sites"]) == 3
        for who, forms in ((anna, 2), (bob, 1)):
            assert (await who.ask("/sites", Accept="text/html"))[2].count(b"<form") == forms


async def test_the_session_of_a_person_who_is_retired_ends_at_once(tmp_path: Path, world: World) -> None:
    authority = make_own_authority(tmp_path, world)
    world.settings |= {"authority": authority}
    async with console(world) as (_, host):
        alice, bob = [await visitor(world, host, who) for who in ("alice", "bob")]
        unused = await link(world, "bob")
        ca.revoke(authority, [Identity(Role.OPERATOR, "bob")])

        async def is_out() -> bool:
            return (await bob.ask("/fleet"))[0] == 401

        await until(is_out)
        assert (await bob.ask("/cycles", {"sites": ["site-1"]}))[0] == 401
        _, headers, _ = await Visitor(host).ask("/" + unused.partition("//")[2].partition("/")[2])
        bob.cookie = headers.get("set-cookie", "").partition(";")[0]
        assert (await bob.ask("/fleet"))[0] == 401, "nor does a link help that was made before"
        assert (await alice.ask("/fleet"))[0] == 200


@pytest.mark.browser
async def test_an_operator_finds_devices_among_ten_thousand_and_follows_a_cycle(world: World) -> None:
    def write(r: Repository) -> None:
        fill(r, now())
        add_cycle(r, 1, now(), State.RELEASED, "site-07")

    async with console(world) as (cloud, host):
        cloud.context.database.transact(write, writes=True)
        async with chromium() as browser, tab_of(browser, host) as tab:
            page = tab.page
            await page.goto(await link(world, "alice"))
            await expect(page.get_by_text("10,000 devices at 40 sites")).to_be_visible()
            await page.get_by_label("Health").select_option("failed install")
            await expect(page.get_by_text("1 to 25 of 25")).to_be_visible()
            assert "state=failed+install" in page.url, "the address has the filters"
            await page.get_by_role("link", name="camera-00000").click()
            await expect(page.get_by_text("the file does not load")).to_be_visible()
            await page.get_by_role("link", name="Cycles").click()
            await page.get_by_role("link", name="Start a cycle").click()
            await page.get_by_label("site-07", exact=True).check()
            await page.get_by_label("site-08", exact=True).check()
            await page.locator("#o-lam").fill("0.5")
            await page.get_by_role("button", name="Start the cycle").first.click()
            await expect(page.get_by_text("operator/alice")).to_have_count(2)
            cycle_id = page.url.rpartition("/")[2]
            await cloud.context.write(lambda r, at: r.cycles.move(cycle_id, State.FAILED, at, "cloud", HOSTILE))
            await expect(page.get_by_text(HOSTILE)).to_be_visible()  # which the page shows by itself
            await page.get_by_role("link", name="Rollouts").click()
            await page.get_by_label("Why (for the log of decisions)").fill("too many calls")
            await page.get_by_role("button", name="Pause").click()
            await expect(page.get_by_text("No further device gets it: too many calls")).to_be_visible()
            await page.get_by_role("link", name="Audit log").click()
            first = page.get_by_role("row").filter(has_text="operator/alice").first
            await expect(first).to_contain_text("too many calls")
            assert await tab.sideways() <= 0
            await page.set_viewport_size({"width": 360, "height": 800})
            for path in (f"/cycles/{cycle_id}", "/rollouts", "/models", "/fleet?text=0999"):
                await page.goto(f"http://{host}{path}")
                assert await tab.sideways() <= 0, path
                assert await tab.barriers() == [], path
            assert tab.problems == []
