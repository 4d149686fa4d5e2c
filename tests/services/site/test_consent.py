"""What a site agrees to stands in its own journal, and nothing that a cloud says takes its place."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from site_doubles import RECIPE, Local, Models, SiteCloud, at_the_site, config_of, running, take_part, write_data_set

from diredi.consent import ConsentEntry, Event, SignedEntry, check_entry, sign_entry
from diredi.errors import NotFound, Refused, WrongState
from diredi.rpc.client import call
from diredi.rpc.v1 import local_pb2
from diredi.trust.identity import Credentials
from tests.support.pki import Pki
from tests.support.waiting import PATIENCE_S, until
from user_domain.config import UserDomainConfig
from user_domain.consent import ConsentJournal

pytestmark = pytest.mark.usefixtures("quick_processes")

FETCHED = "diredi.v1.GetBlobRequest"


async def waiting(local: Local) -> list[str]:
    return [one.cycle_id for one in (await requests(local)).requests]


async def requests(local: Local) -> local_pb2.ListRequestsResponse:
    return await call(local.stub.ListRequests, local_pb2.ListRequestsRequest(), deadline_s=PATIENCE_S)


def decision(asked: str, credentials: Credentials, event: Event = "approved", **more: Any) -> SignedEntry:
    what = json.loads(asked)
    values = {"event": event, "site": "site-1", "cycle_id": what["cycle"], "what": what, "by": "a person"}
    return sign_entry(ConsentEntry(**{**values, "at": datetime.now(UTC), **more}), credentials)


async def decide(local: Local, signed: SignedEntry) -> None:
    request = local_pb2.DecideRequest(entry=signed.text, signature=signed.signature)
    await call(local.stub.Decide, request, deadline_s=PATIENCE_S)


def as_site(local: Local, config: UserDomainConfig, pki: Pki) -> Local:
    return Local(config.listen, pki.credentials("site", "site-1"))


@pytest.mark.slow
async def test_approval_that_only_the_cloud_claims_begins_nothing_and_that_of_a_person_at_the_site_does(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    task = models.extract_task(cloud, approved=True)
    task.scope = "group:harbours"
    await cloud.site.offer(task)
    config = config_of(tmp_path / "site", pki, cloud.address, data, approval="ask")
    async with running(config, pki) as local:
        own = as_site(local, config, pki)
        await until(lambda: _is(waiting(own), ["cycle-1"]))
        assert cloud.site.auto_approve is False
        sent = {name.removeprefix("diredi.v1.") for name in (await local.status()).sent_bytes}
        assert sent == {"WatchTasksRequest"}, "not a download, not a word of progress"
        shown = await at_the_site(config, "requests")
        for words in ("forklift", "group harbours", "8 images", "tutor 1 epochs", "int8-row-zstd", "no limit"):
            assert words in shown
        assert "forklift" in await at_the_site(config, "approve", "cycle-1", "--yes")
        await until(lambda: bool(cloud.site.gaps))
        await own.channel.close()
    journal = ConsentJournal(config.state_dir / "consent.jsonl", pki.credentials("site", "site-1"))
    approved, uploaded = journal.find("cycle-1", "approved", "uploaded")
    assert approved.by.startswith("a person")
    assert approved.what["recipe"] == RECIPE
    assert uploaded.what["gaps"] == [cloud.site.gaps[0].tutor_gap.blob.digest]


async def _is(found: Any, wanted: object) -> bool:
    return bool(await found == wanted)


OUTSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": ({"tutor": {"epochs": 1e9}}, "tutor.epochs is 1e+09, this site takes 300 at most (bounds.max_epochs)"),
    "steps": ({"student": {"steps": 10**9}}, "bounds.max_steps"),
    "probe": ({"probe_steps": 10**9}, "bounds.max_steps"),
    "batch": ({"branch": {"batch": 10**9}}, "branch.batch is 1e+09, this site takes 128 at most (bounds.max_batch)"),
    "codec": ({"codec": "fp32-zstd"}, "codec is fp32-zstd, this site takes int8-row-zstd (bounds.codecs)"),
    "minutes": ({"max_minutes": 61}, "max_minutes is 61, this site takes 60 at most (bounds.max_minutes)"),
    "looks": ({"oracle_looks": [1 + n / 100 for n in range(99)]}, "bounds.max_looks"),
    "classes": ({}, "the number of new classes is 1, this site takes 0 at most (bounds.max_new_classes)"),
    "size": ({}, "the image size of the tutor is 64, this site takes 32 at most (bounds.max_image_size)"),
    "scope": ({}, "the cycle is for fleet, this site takes part in those for site, group:north (bounds.scopes)"),
    "download": ({}, "this site takes 2048 at most (bounds.max_download_mib)"),
}


async def test_a_recipe_outside_the_bounds_is_refused_before_a_download_with_a_reason_that_names_the_bound(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    bounds: dict[str, dict[str, Any]] = {
        "classes": {"max_new_classes": 0}, "size": {"max_image_size": 32}, "scope": {"scopes": ["site", "group:north"]},
    }  # fmt: skip
    lives = [([name], bounds[name]) for name in bounds]
    lives.append(([name for name in OUTSIDE if name not in bounds], {"max_minutes": 60}))
    for names, limits in lives:
        for name in names:
            task = models.extract_task(cloud, name, approved=True, recipe=RECIPE | OUTSIDE[name][0])
            task.scope = "fleet"
            if name == "download":
                task.tutor.weights.bytes = 5000 * 2**20
            await cloud.site.offer(task)
        config = config_of(tmp_path / "site", pki, cloud.address, data, bounds=limits)
        async with running(config, pki) as local:
            await until(lambda wanted=names: {cycle for cycle, _ in cloud.cycles.declined} >= set(wanted))
            assert FETCHED not in (await local.status()).sent_bytes
    reasons = dict(cloud.cycles.declined)
    for name, (_, words) in OUTSIDE.items():
        assert words in reasons[name]
    assert not cloud.cycles.approvals
    assert not (tmp_path / "site" / "consent.jsonl").exists()


async def test_a_site_that_never_takes_part_says_no_and_nothing_else(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.extract_task(cloud, approved=True))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data, approval="never"), pki) as local:
        await until(lambda: bool(cloud.cycles.declined))
        assert FETCHED not in (await local.status()).sent_bytes
    assert cloud.cycles.declined == [("cycle-1", "this site takes part in no cycle (approval)")]


async def test_a_decision_counts_only_with_the_key_of_the_site_and_for_what_was_shown(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.extract_task(cloud, approved=True))
    config = config_of(tmp_path / "site", pki, cloud.address, data, approval="ask")
    genuine = pki.credentials("site", "site-1")
    async with running(config, pki) as local:
        with pytest.raises(Refused):  # a device of the site
            await requests(local)
        own = as_site(local, config, pki)
        await until(lambda: _is(waiting(own), ["cycle-1"]))
        asked = (await requests(own)).requests[0].what
        for signed in (
            decision(asked, pki.credentials("site", "site-2")),
            decision(asked, pki.anew("site", "site-1")),  # who has the authority's key makes one of any name
            decision(asked, genuine, site="site-2"),
            SignedEntry(decision(asked, genuine, "declined").text, decision(asked, genuine).signature),
        ):
            with pytest.raises(Refused):
                await decide(own, signed)
        for name in ("site-2", "cloud"):
            stranger = Local(config.listen, pki.credentials("cloud" if name == "cloud" else "site", name))
            with pytest.raises(Refused):
                await decide(stranger, decision(asked, genuine))
            await stranger.channel.close()
        with pytest.raises(NotFound):
            await decide(own, decision(asked.replace("cycle-1", "cycle-9"), genuine))
        small = decision(asked, genuine)
        larger = models.extract_task(cloud, approved=True, recipe=RECIPE | {"tutor": {"epochs": 2, "batch": 4}})
        await cloud.site.offer(larger)
        await until(lambda: _changed(own, asked))
        with pytest.raises(WrongState, match="has changed"):
            await decide(own, small)
        assert FETCHED not in (await local.status()).sent_bytes
        assert not (config.state_dir / "consent.jsonl").exists()
        again = (await requests(own)).requests[0].what
        await decide(own, decision(again, genuine, "declined", reason="not this week"))
        await until(lambda: cloud.cycles.declined == [("cycle-1", "not this week")])
        await own.channel.close()


async def _changed(own: Local, asked: str) -> bool:
    return (await requests(own)).requests[0].what != asked


def test_an_entry_of_the_journal_that_was_forged_cut_or_copied_counts_for_nothing(tmp_path: Path, pki: Pki) -> None:
    path, genuine = tmp_path / "consent.jsonl", pki.credentials("site", "site-1")
    ConsentJournal(path, genuine).record("approved", "kept", {"recipe": {}})
    line = json.loads(path.read_text())
    stranger = pki.credentials("site", "site-2")
    forged = json.dumps(json.loads(line["entry"]) | {"cycle_id": "forged"})
    other = sign_entry(
        check_entry(SignedEntry(line["entry"], base64.b64decode(line["signature"])), genuine.certificate), stranger
    )
    lines = [
        json.dumps(line | {"entry": forged}),
        json.dumps(line | {"entry": forged, "certificate": stranger.certificate.decode()}),
        json.dumps(line | {"entry": other.text, "signature": base64.b64encode(other.signature).decode()}),
        json.dumps(line)[:-30],
        "[" * 5000,
        "{}",
    ]
    path.write_text("\n".join([path.read_text(), *lines]))
    journal = ConsentJournal(path, genuine)
    assert [len(journal.find(cycle, "approved")) for cycle in ("kept", "forged")] == [1, 0]
    journal.record("approved", "after a cut line", {})
    renewed = pki.anew("site", "site-1")
    assert ConsentJournal(path, renewed).find("after a cut line", "approved"), "an older key has signed it"
    assert not ConsentJournal(path, stranger).find("kept", "approved")


async def test_nothing_is_measured_for_a_cycle_that_this_site_has_not_approved_and_uploaded_to(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, write_data_set(tmp_path / "known", classes=2))
    take_part(config, "cycle-1")
    await cloud.site.offer(models.validate_task(cloud, "made-up"))
    rebase = models.validate_task(cloud, "rebase")
    rebase.rebased_cycle_id = "made-up"
    await cloud.site.offer(rebase)
    await cloud.site.offer(models.validate_task(cloud, "cycle-1", recipe=RECIPE | {"labels": "oracle"}))
    async with running(config, pki) as local:
        await until(lambda: len(cloud.site.failures) == 3)
        assert FETCHED not in (await local.status()).sent_bytes
    told = dict(cloud.site.failures)
    assert "uploaded nothing to cycle made-up" in told["made-up/validate"]
    assert "uploaded nothing to cycle made-up" in told["rebase/validate"]
    assert "not the one that this site has approved" in told["cycle-1/validate"]
    assert not cloud.site.validations


@pytest.mark.slow
async def test_one_candidate_of_a_cycle_is_measured_once_and_another_one_never(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    data = write_data_set(tmp_path / "known", classes=2)
    config = config_of(tmp_path / "site", pki, cloud.address, data, min_held_out=5)
    take_part(config)
    await cloud.site.offer(models.validate_task(cloud))
    async with running(config, pki):
        await until(lambda: bool(cloud.site.validations))
        said = cloud.site.validations[0].after
        assert (said.images, dict(said.per_class)) == (0, {}), "there are four images, which say too much"
        for image in (data.parent / "images" / "val").iterdir():  # what it shows now is not told
            image.write_bytes(next((data.parent / "images" / "train").iterdir()).read_bytes())
        again = models.validate_task(cloud)
        again.approved = True  # so that the stream tells of it again
        await cloud.site.offer(again)
        await until(lambda: len(cloud.site.validations) == 2)
        other = models.validate_task(cloud)
        other.student.onnx.digest = "sha256:" + "0" * 64
        await cloud.site.offer(other)
        await until(lambda: bool(cloud.site.failures))
    first, second = cloud.site.validations
    assert first == second
    assert "another candidate" in cloud.site.failures[0][1]


@pytest.mark.slow
async def test_a_rebase_is_asked_for_and_measured_only_where_a_person_says_yes(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    known = write_data_set(tmp_path / "known", classes=2)
    config = config_of(tmp_path / "site", pki, cloud.address, known, approval="ask")
    take_part(config, "cycle-1")
    task = models.validate_task(cloud, "cycle-2")
    task.rebased_cycle_id = "cycle-1"
    await cloud.site.offer(task)
    async with running(config, pki) as local:
        own = Local(config.listen, pki.credentials("site", "site-1"))
        await until(lambda: _is(waiting(own), ["cycle-2"]))
        assert FETCHED not in (await local.status()).sent_bytes
        (asked,) = (await requests(own)).requests
        assert any("what cycle cycle-1 has learned here" in one.text for one in asked.explanation)
        await decide(own, decision(asked.what, pki.credentials("site", "site-1")))
        await until(lambda: bool(cloud.site.validations))
        await own.channel.close()


@pytest.mark.slow
async def test_a_site_measures_a_candidate_of_others_only_where_its_own_policy_says_so_and_tells_figures_alone(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.external_task(cloud, "first"))
    config = config_of(tmp_path / "never", pki, cloud.address, data, approval="always")
    async with running(config, pki) as local:
        await until(lambda: bool(cloud.site.failures))
        ((task, reason),) = cloud.site.failures
        assert (task, "external_validation" in reason) == ("first/validate-external", True)
        assert "diredi.v1.GetBlobRequest" not in (await local.status()).sent_bytes, "nothing was fetched for it"
    assert not cloud.site.validations
    await cloud.site.offer(models.external_task(cloud))
    config = config_of(tmp_path / "bounds", pki, cloud.address, data, external_validation="bounds")
    async with running(config, pki) as local:
        await until(lambda: bool(cloud.site.validations))
        (said,) = cloud.site.validations
        sent = {name.removeprefix("diredi.v1.") for name in (await local.status()).sent_bytes}
    assert sent == {"WatchTasksRequest", "GetBlobRequest", "SubmitValidationRequest"}
    assert said.before == said.after, "it was the same model"
    assert said.after.images == 4 and "forklift" not in said.after.per_class, "no class name leaves that is not known"
