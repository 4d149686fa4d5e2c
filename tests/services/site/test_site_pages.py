"""The site's web pages: the log-in, the guard, JSON for programs, and what a person does in a real browser."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from site_doubles import RECIPE, Local, Models, SiteCloud, config_of, running, write_data_set

from diredi.consent import SignedEntry, check_entry
from diredi.data.sample_reason import SampleReason
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput, Refused, WrongState
from diredi.labels import LabelSpace
from diredi.rpc.client import call
from diredi.rpc.convert import Model, model_to, struct_to
from diredi.rpc.v1 import sites_pb2
from diredi.rpc.v1.pages_pb2 import OpenPagesRequest
from diredi.rpc.v1.pages_pb2_grpc import PageServiceStub
from diredi.store.blobs import Blob, digest_of_file
from edge_node.sources.reference import Reference
from tests.support.browser import chromium, tab_of
from tests.support.fuzz import ask_nonsense
from tests.support.net import free_port
from tests.support.pki import Pki
from tests.support.prometheus import Values, documented, values_of
from tests.support.visitor import Visitor
from tests.support.waiting import until
from user_domain.config import UserDomainConfig
from user_domain.consent import ConsentJournal
from user_domain.labelled_samples import join_samples
from user_domain.samples import Box, DetectedBox, SampleStore, Sighting

HOSTILE = "<img src=x onerror=alert(1)>"


def a_task(cycle: str = "cycle-1", scope: str = "fleet") -> sites_pb2.Task:
    """What a person is asked to approve; its models are never downloaded here."""
    spec = DetectorSpec(architecture="yolo11-w0.125", image_size=64, labels=LabelSpace(names=("car", "person")))
    model = Model("sha256:" + "0" * 64, "tutor", spec, Blob("sha256:" + "1" * 64, 2**20))
    return sites_pb2.Task(
        id=f"{cycle}/extract", kind=sites_pb2.TASK_KIND_EXTRACT, cycle_id=cycle, scope=scope,
        recipe=struct_to(RECIPE), tutor=model_to(model), student=model_to(replace(model, kind="student")),
    )  # fmt: skip


@dataclass
class Site:
    local: Local
    own: Local
    config: UserDomainConfig

    @property
    def host(self) -> str:
        return self.config.pages.listen

    async def link(self, by: Local | None = None) -> str:
        channel = (by or self.own).channel
        return (await call(PageServiceStub(channel).OpenPages, OpenPagesRequest(person="maria"), deadline_s=10)).url


@asynccontextmanager
async def site_with_pages(folder: Path, pki: Pki, cloud: SiteCloud, data: Path, **more: Any) -> AsyncIterator[Site]:
    pages = {"listen": f"127.0.0.1:{free_port()}"}
    config = config_of(folder, pki, cloud.address, data, **{"approval": "ask", "pages": pages, **more})
    async with running(config, pki) as local:
        own = Local(config.listen, pki.credentials("site", "site-1"))
        site = Site(local, own, config)
        await until(lambda: _serves(site))
        yield site
        await own.channel.close()


async def _serves(site: Site) -> bool:
    try:
        await Visitor(site.host).ask("/")
    except OSError:
        return False
    return True


async def test_only_the_site_itself_gets_a_link_which_works_once_and_others_see_nothing(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    async with site_with_pages(tmp_path / "site", pki, cloud, data) as site:
        with pytest.raises(Refused, match="holder of site/site-1's key"):
            await site.link(site.local)
        visitor, stranger = Visitor(site.host), Visitor(site.host)
        link = await site.link()
        await visitor.log_in(link)
        assert (await stranger.ask("/" + link.rpartition("0.0.1")[2].partition("/")[2]))[0] == 403
        for path in ("/", "/cycles", "/cycles/events/work", "/sent", "/sent.csv", "/session", "/openapi.json"):
            status, headers, body = await stranger.ask(path)
            assert status == 401 and b"cycle" not in body, path
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["cache-control"] == "no-store"
        described = json.loads((await visitor.ask("/openapi.json"))[2])
        assert "/cycles/decisions/{cycle}" in described["paths"]
        status, _, body = await visitor.ask("/sent")
        assert status == 200 and json.loads(body)["messages"][0]["message"] == "WatchTasksRequest"
        status, _, body = await visitor.ask("/sent.csv")
        assert b"diredi.v1.WatchTasksRequest" in body
        status, _, body = await visitor.ask("/sent", Host="evil.example")
        assert status == 421 and b"stranger" in body
        assert (await visitor.ask("/logout", {}))[0] == 303
        assert (await visitor.ask("/sent"))[0] == 401


async def test_a_change_needs_the_token_of_the_session_and_is_about_what_was_shown(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    await cloud.site.offer(a_task())
    async with site_with_pages(tmp_path / "site", pki, cloud, data) as site:
        visitor = Visitor(site.host)
        await visitor.log_in(await site.link())

        async def asked() -> list[Any]:
            return list(json.loads((await visitor.ask("/cycles"))[2])["asked"])

        await until(lambda: _is_there(asked()))
        (request,) = await asked()
        path, decision = "/cycles/decisions/cycle-1", {"answer": "declined", "shown": request["shown"], "reason": "no"}
        assert (await visitor.ask(path, decision, X_CSRF_Token="guess"))[0] == 403
        assert (await visitor.ask(path, decision, Sec_Fetch_Site="cross-site"))[0] == 403
        assert (await visitor.ask(path, {"answer": "maybe"}))[0] == 400
        assert (await visitor.ask(path, decision | {"shown": "another"}))[0] == 409
        assert (await visitor.ask(path + "0", decision))[0] == 404
        assert (await visitor.ask(path, {"answer": "x" * 2**21}))[0] == 413
        assert not cloud.cycles.declined and len(await asked()) == 1
        assert (await visitor.ask(path, decision))[0] == 200
        await until(lambda: cloud.cycles.declined == [("cycle-1", "no")])
    journal = ConsentJournal(site.config.state_dir / "consent.jsonl", pki.credentials("site", "site-1"))
    (entry,) = journal.find("cycle-1", "declined")
    assert entry.by == "site/site-1 (maria), by page"


async def _is_there(found: Any) -> bool:
    return bool(await found)


async def test_a_site_without_pages_says_how_to_have_them(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, data)
    async with running(config, pki):
        own = Local(config.listen, pki.credentials("site", "site-1"))
        with pytest.raises(WrongState, match=r"set pages.listen, such as 127.0.0.1:8480"):
            await call(PageServiceStub(own.channel).OpenPages, OpenPagesRequest(), deadline_s=10)
        await own.channel.close()


@pytest.mark.browser
async def test_a_person_sees_what_is_asked_and_approves_it_by_click(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    cloud.site.fails["ProposeClasses"] = [InvalidInput("no such class")]  # before anything is trained
    async with (
        site_with_pages(tmp_path / "site", pki, cloud, data) as site,
        chromium() as browser,
        tab_of(browser, site.host, width=360) as tab,
    ):
        page, link = tab.page, await site.link()
        await page.goto(link)
        await page.get_by_role("heading", name="Nothing is asked yet").wait_for()
        await cloud.site.offer(a_task(HOSTILE, "group:harbours"))  # which the page shows by itself
        await page.get_by_role("heading", name=HOSTILE).wait_for()
        assert "the sites of group harbours" in await page.inner_text("main")
        assert await tab.sideways() <= 0
        cloud.site.may_propose.clear()
        await page.get_by_role("button", name="Approve").click()
        await page.get_by_text("This site's computer learns from its own images.").wait_for()
        cloud.site.may_propose.set()
        await page.get_by_text("This site's computer learns from its own images.").wait_for(state="detached")
        await until(lambda: cloud.cycles.approvals == [HOSTILE])
        await page.get_by_text("site/site-1 (maria), by page").wait_for()
        await page.get_by_role("link", name="What left").click()
        await page.get_by_role("heading", name="What left this site").wait_for()
        assert await page.locator("svg.chart rect").count() >= 1 and await tab.sideways() <= 0
        await page.get_by_role("link", name="Cycles").click()
        (cookie,) = await page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
        elsewhere = Visitor(site.host, f"{cookie['name']}={cookie['value']}")
        elsewhere.csrf = json.loads((await elsewhere.ask("/session"))[2])["csrf"]
        assert (await elsewhere.ask("/logout", {}))[0] == 303
        await page.get_by_role("heading", name="Log in").wait_for()  # the page notices by itself
        await page.goto(link)
        assert "used already" in await page.inner_text("main")
    assert [line for line in tab.problems if "401" not in line and "403" not in line] == []


def a_picture(number: int) -> bytes:
    image = np.full((120, 160, 3), 40 + number, np.uint8)
    cv2.rectangle(image, (40, 30), (80, 90), (80, 200, 40), -1)
    return bytes(cv2.imencode(".jpg", image)[1])


@pytest.mark.browser
async def test_pictures_are_labelled_by_key_and_mouse_and_several_at_once(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    folder = tmp_path / "site" / "samples"
    seen = DetectedBox(name=HOSTILE, x=0.375, y=0.5, width=0.25, height=0.5, confidence=0.4)
    store = SampleStore(folder, 100)
    for number in range(5):
        sighting = Sighting(device="camera-1", detections=(seen,), doubt=0.9 - 0.1 * number)
        assert store.add(a_picture(number), sighting)
    ids = [info.id for info in store.find(order="doubtful")]
    async with (
        site_with_pages(tmp_path / "site", pki, cloud, data) as site,
        chromium() as browser,
        tab_of(browser, site.host) as tab,
    ):
        page = tab.page
        await page.goto(await site.link())
        await page.goto(f"http://{site.host}/samples/label")

        async def shows(number: int) -> None:
            await page.locator(f'#labeller[data-shown="{ids[number]}"]').wait_for()

        await shows(0)
        await page.keyboard.press("Enter")  # all that is believed is right
        await shows(1)
        box = await page.locator("#canvas").bounding_box()
        assert box is not None
        left, top, scale = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["height"] / 120
        await page.keyboard.press("j")
        await page.keyboard.press("x")  # that one is wrong
        await page.mouse.move(left + 20 * scale, top)
        await page.mouse.down()
        await page.mouse.move(left + 40 * scale, top + 30 * scale, steps=4)
        await page.mouse.up()
        await page.keyboard.press("c")
        await page.keyboard.type("pallet jack")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Enter")
        await shows(2)
        await page.keyboard.press("n")  # nothing
        await shows(3)
        await page.keyboard.press("u")  # no: back, and look again
        await shows(2)
        await page.keyboard.press("a")
        await page.keyboard.press("1")  # the first class of the data set
        for key in ("ArrowRight", "Shift+ArrowDown", "ArrowDown", "Control+z", "Enter"):
            await page.keyboard.press(key)
        await shows(3)
        await page.get_by_role("link", name="Overview").click()
        assert await page.locator(".grid li").count() == 2
        for tick in await page.get_by_role("checkbox").all():
            await tick.check()
        await page.get_by_role("button", name="All detected is right").click()
        await page.get_by_role("heading", name="Nothing to look at").wait_for()
        assert await tab.sideways() <= 0
    assert tab.problems == []
    labelled = SampleStore(folder, 100)
    found = {number: labelled.get(one) for number, one in enumerate(ids)}
    assert all(info.labelled_by == "site/site-1 (maria)" for info in found.values())
    assert found[0].labels == found[3].labels == found[4].labels == (Box(**seen.model_dump(exclude={"confidence"})),)
    (drawn,) = found[1].labels or ()
    assert drawn.name == "pallet jack"
    assert (drawn.x, drawn.y) == (pytest.approx(0.5 + 30 / 160, abs=0.02), pytest.approx(0.5 + 15 / 120, abs=0.02))
    (added,) = found[2].labels or ()
    assert (added.name, added.width, added.height) == ("car", pytest.approx(0.2), pytest.approx(0.21))
    assert (added.x, added.y) == (pytest.approx(0.51), pytest.approx(0.505))


async def answer_as_a_node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What docs/reference/outputs.md says of the web server of an edge node, with one camera."""
    path = (await reader.readline()).split()[1].decode()
    event = {"id": "1", "type": "begin", "class": HOSTILE, "camera": "yard", "confidence": 0.5}
    answers = {
        "/healthz": json.dumps({"status": "ok", "problem": "", "release": 7, "cameras": {"yard": "ok"}}).encode(),
        "/metrics": b'diredi_edge_frames_total{camera="yard"} 5.0\n',
        "/events": json.dumps({"events": [event | {"seen": "2026-11-30T12:00:00.000+00:00"}]}).encode(),
        "/cameras/yard/picture.jpg": a_picture(1),
    }
    body = answers[path.partition("?")[0]]
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@pytest.mark.browser
async def test_every_page_fits_a_phone_keeps_nobody_out_and_asks_nobody_else(
    tmp_path: Path, pki: Pki, cloud: SiteCloud
) -> None:
    data = write_data_set(tmp_path / "set")
    first = next((tmp_path / "set" / "images" / "train").glob("*.jpg"))
    shutil.copyfile(first, tmp_path / "set" / "images" / "val" / "again.jpg")
    store = SampleStore(tmp_path / "site" / "samples", 100)
    store.add(a_picture(0), Sighting(device="camera-1", detections=(), doubt=0.9))
    store.set_labels(store.find()[0].id, [Box(name="car", x=0.5, y=0.5, width=0.2, height=0.2)], by="maria")
    store.add(a_picture(1), Sighting(device="camera-1", reasons=(SampleReason.RARE,)))
    await cloud.site.offer(a_task())
    node = await asyncio.start_server(answer_as_a_node, "127.0.0.1", 0)
    port = node.sockets[0].getsockname()[1]
    nodes = {"camera-1": f"http://127.0.0.1:{port}", "gone": f"http://127.0.0.1:{free_port()}"}
    async with (
        node,
        site_with_pages(tmp_path / "site", pki, cloud, data, nodes=nodes) as site,
        chromium() as browser,
        tab_of(browser, site.host, width=360, dark=True) as tab,
    ):
        await tab.page.goto(await site.link())
        said: dict[str, str] = {}
        for path in (
            "/cycles",
            "/samples",
            "/samples/label",
            "/data",
            "/data/pictures",
            "/data/deletions",
            "/live",
            "/sent",
            "/nowhere",
        ):
            await tab.page.goto(f"http://{site.host}{path}")
            await tab.page.wait_for_load_state("networkidle" if path != "/cycles" else "load")
            said[path] = await tab.page.text_content("main") or ""
            assert await tab.sideways() <= 0, path
            assert await tab.barriers() == [], path
        visitor = Visitor(site.host)
        await visitor.log_in(await site.link())
        zipped = zipfile.ZipFile(io.BytesIO((await visitor.ask("/data/export"))[2]))
        assert (await visitor.ask("/data/pictures/train/99"))[0] == 404
        assert (await visitor.ask("/live/nobody/yard/picture"))[0] == 404
        await tab.page.goto(f"http://{site.host}/areas/camera-1/yard")
        picture = await tab.page.locator("#areas").bounding_box()
        assert picture is not None
        for x, y in ((0.25, 0.5), (0.75, 0.5)):
            await tab.page.mouse.click(picture["x"] + x * picture["width"], picture["y"] + y * picture["height"])
        for key in ("Shift+ArrowDown", "Shift+ArrowDown", "Enter"):
            await tab.page.keyboard.press(key) if key == "Enter" else await tab.page.locator("#areas").press(key)
        await tab.page.get_by_label("Name of the zone").fill("gate")
        await tab.page.get_by_role("button", name="Save").click()
        await tab.page.get_by_role("heading", name="For the edge node").wait_for()
        assert await tab.sideways() <= 0 and await tab.barriers() == []
        mask = {"kind": "mask", "corners": "0,0,1,0,1,0.1"}
        for wrong in ({"name": "all"}, {"name": "b", "classes": "a:b"}, {"name": "b", "corners": [0, 0, 2]}):
            zone = {"kind": "zone", "corners": [0, 0, 1, 0, 1, 1]} | wrong
            assert (await visitor.ask("/areas/camera-1/yard", zone))[0] == 400
        setting = json.loads((await visitor.ask("/areas/camera-1/yard", mask))[2])["setting"]
        settings = Reference.parse(f"rtsp://10.0.0.7/stream1{setting}").settings
        (zone,), (corners,) = settings.zone, settings.mask
        assert zone.name == "gate" and zone.corners == pytest.approx((0.25, 0.5, 0.75, 0.5, 0.75, 0.7), abs=0.02)
        assert corners == (0, 0, 1, 0, 1, 0.1)
        left = json.loads((await visitor.ask("/areas/camera-1/yard/removals", {"number": 0}))[2])
        assert [area["kind"] for area in left["areas"]] == ["mask"]
    assert [line for line in tab.problems if "404" not in line] == []
    assert "release 7" in said["/live"] and "does not answer" in said["/live"] and HOSTILE in said["/live"]
    assert "1 images are there more than once" in said["/data"] and "1 frames" in said["/data"]
    assert "no such page" in said["/nowhere"]
    assert any(name.endswith(".jpg") for name in zipped.namelist()) and "data.yaml" in zipped.namelist()


async def test_pictures_come_in_and_go_out_in_other_formats_and_are_deleted_with_proof(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    state = tmp_path / "site"
    coco = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 160, "height": 120} for n in range(4)],
        "categories": [{"id": 1, "name": "pallet jack"}],
        "annotations": [{"image_id": n, "category_id": 1, "bbox": [40, 30, 40, 60]} for n in range(4)],
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("labels.json", json.dumps(coco))
        for number in range(3):
            archive.writestr(f"images/{number}.jpg", a_picture(number))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.json", b" " * 2**22)
    async with site_with_pages(state, pki, cloud, data) as site:
        visitor = Visitor(site.host)
        await visitor.log_in(await site.link())
        stranger = Visitor(site.host, csrf="guess")
        assert (await stranger.ask("/data/import", file.getvalue()))[0] == 401
        assert (await visitor.ask("/data/import", file.getvalue(), X_CSRF_Token=""))[0] == 403
        status, _, body = await visitor.ask("/data/import?camera=yard", bomb.getvalue())
        assert status == 400 and b"unpacks to more than" in body
        assert not list(state.glob("import-*")) and not list((state / "samples").iterdir())
        status, _, body = await visitor.ask("/data/import?camera=yard", file.getvalue())
        done = json.loads(body)
        assert (status, done["format"], done["added"], len(done["left_out"])) == (200, "coco", 3, 1)
        assert "3.jpg: there is no such picture" in done["left_out"][0]
        for form in ("yolo", "coco", "cvat", "label-studio", "pascal-voc"):
            status, headers, out = await visitor.ask(f"/data/export?format={form}&of=samples")
            assert status == 200 and form in headers["content-disposition"]
            assert sum(name.endswith(".jpg") for name in zipfile.ZipFile(io.BytesIO(out)).namelist()) == 3
            done = json.loads((await visitor.ask("/data/import", out))[2])  # as it was, and corrected elsewhere
            assert (done["format"], done["added"], done["relabelled"], done["left_out"]) == (form, 0, 3, [])
        status, _, out = await visitor.ask("/data/export?format=yolo&of=all")
        done = json.loads((await visitor.ask("/data/import", out))[2])
        assert done["added"] == 0 and "the private data set has it" in done["left_out"][0]

        joined = join_samples(SampleStore(state / "samples", 100), state / "labelled", 0.2, data)  # as a cycle does
        assert joined is not None and len(list(joined.parent.glob("images/*/*.jpg"))) == 3
        shown = json.loads((await visitor.ask("/data/deletions?camera=yard&before=2100-01-01"))[2])
        assert shown["count"] == 3 and shown["deletions"] == []
        choice = {"camera": "yard", "before": "", "labelled": "yes", "reason": "asked for by a person"}
        assert (await visitor.ask("/data/deletions", choice | {"count": 2}))[0] == 409
        status, _, body = await visitor.ask("/data/deletions", choice | {"count": 3})
        (proof,) = json.loads(body)["deletions"]
        assert (status, len(proof["samples"]), proof["remaining"]) == (200, 3, 0)
        assert (proof["by"], proof["reason"]) == ("site/site-1 (maria), by page", "asked for by a person")
        assert not list((state / "samples").iterdir()) and not list((state / "labelled").iterdir())
        done = json.loads((await visitor.ask("/data/import", file.getvalue()))[2])
        assert done["added"] == 0 and "it was deleted here for good" in done["left_out"][-1]
        for path in ("/data", "/data/deletions?before=&camera=", "/cycles"):
            assert (await visitor.ask(path, Accept="text/html"))[0] == 200, path
        lines = (await visitor.ask("/data/deletions.jsonl"))[2].splitlines()
    (line,) = map(json.loads, lines)
    signed = SignedEntry(line["entry"], base64.b64decode(line["signature"]))
    assert check_entry(signed, line["certificate"].encode()).what["samples"] == proof["samples"]
    (state / "samples").joinpath(f"{proof['samples'][0]}.jpg").write_bytes(a_picture(0))  # a backup is put back
    async with site_with_pages(state, pki, cloud, data):
        assert not list((state / "samples").iterdir())


async def test_prometheus_is_told_figures_of_the_site_and_no_name_of_a_class(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    store = SampleStore(tmp_path / "site" / "samples", 100)
    store.add(a_picture(0), Sighting(device="camera-1", detections=(), doubt=0.9))
    await cloud.site.offer(a_task())
    host = f"127.0.0.1:{free_port()}"
    config = config_of(tmp_path / "site", pki, cloud.address, data, approval="ask", metrics=host)
    async with running(config, pki):
        prometheus = Visitor(host)

        async def told() -> Values:
            return values_of((await prometheus.ask("/metrics"))[2])

        async def waits() -> bool:
            try:
                return (await told())["diredi_site_requests_waiting",] == 1
            except OSError:
                return False

        await until(waits)
        values = await told()
        names = {str(name) for name, *_ in values if str(name).startswith("diredi_")}
        unseen = {"diredi_site_work_done_ratio"}  # which is told while there is work
        assert names | unseen == documented("diredi_site_")
        assert values["diredi_site_private_images", ("split", "train")] == 8
        assert values["diredi_site_samples", ("labelled", "no")] == values["diredi_site_cloud_online",] == 1
        assert values["diredi_site_sent_bytes_total", ("type", "WatchTasksRequest")] > 0
        assert "forklift" not in str(values)
        status, _, body = await prometheus.ask("/metrics", Host="evil.example")
        assert status == 421 and b"stranger" in body
    assert json.loads((config.state_dir / "shown.json").read_text())["bytes"]["metrics"] > 1000


@pytest.mark.slow
async def test_the_candidate_is_compared_with_the_release_before_on_own_pictures_and_a_release_is_held(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path, models: Models
) -> None:
    state, downloads = tmp_path / "site", tmp_path / "site" / "downloads"
    downloads.mkdir(parents=True)
    journal = ConsentJournal(state / "consent.jsonl", pki.credentials("site", "site-1"))
    for event, field, file in (("approved", "student", models.student), ("validated", "candidate", models.onnx)):
        digest = digest_of_file(file).digest
        shutil.copyfile(file, downloads / (digest.removeprefix("sha256:") + file.suffix))
        journal.record(event, "cycle-1", {field: digest, "figures": {"images": 4, "map50": 0.5}})
    async with site_with_pages(state, pki, cloud, data, quantise_confidence=0.0001) as site:
        visitor = Visitor(site.host)
        await visitor.log_in(await site.link())
        path = "/comparisons/cycle-1"
        assert json.loads((await visitor.ask(path))[2])["state"] == "none"
        assert (await visitor.ask("/comparisons/cycle-2", {}))[0] == 404
        assert (await visitor.ask(path, {}))[0] == 200

        async def is_done() -> bool:
            return bool(json.loads((await visitor.ask(path))[2])["state"] != "under way")

        await until(is_done)
        view = json.loads((await visitor.ask(path))[2])
        assert (view["state"], view["images"], view["problem"]) == ("done", 4, "")
        assert [one["name"] for one in view["classes"]] == ["car", "forklift", "person"]
        assert all(sum((one["gained"], one["lost"], one["both"], one["neither"])) == 4 for one in view["classes"])
        page = (await visitor.ask(path, Accept="text/html"))[2]
        assert b"No longer found" in page
        for number in (0, 4):
            assert (await visitor.ask(f"/comparisons/pictures/{number}/cycle-1"))[0] == (200 if number < 4 else 404)
        assert b'href="/comparisons/cycle-1"' in (await visitor.ask("/cycles", Accept="text/html"))[2]

        held = json.loads((await visitor.ask("/cycles/holds", {"answer": "held", "release": 7}))[2])
        assert (held["held"], held["all_held"]) == ([7], False)
        assert [entry.by for entry in ConsentJournal(journal._path, journal.credentials).find("", "held")] == [
            "site/site-1 (maria), by page"
        ]
        held = json.loads((await visitor.ask("/cycles/holds", {"answer": "unheld", "release": 7}))[2])
        assert held["held"] == []


async def test_no_nonsense_breaks_the_site_s_pages(tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path) -> None:
    store = SampleStore(tmp_path / "site" / "samples", 100)
    store.add(a_picture(0), Sighting(device="camera-1", detections=(), doubt=0.9))
    await cloud.site.offer(a_task())
    nodes = {"a": f"http://127.0.0.1:{free_port()}"}
    async with site_with_pages(tmp_path / "site", pki, cloud, data, nodes=nodes) as site:
        visitor = Visitor(site.host)
        await visitor.log_in(await site.link())
        asked, wrong = await ask_nonsense(visitor, 80, seed=2)
    assert asked > 25 and wrong == []
