"""A user domain over real gRPC and TLS, with real jobs: one cycle's work, and everything that can come between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from site_doubles import (
    CLASSES,
    RECIPE,
    Local,
    Models,
    SiteCloud,
    at_the_site,
    config_of,
    running,
    take_part,
    write_data_set,
)
from structlog.testing import capture_logs

from diredi.data.sample_reason import SampleReason
from diredi.data.style import SiteStyle
from diredi.errors import CorruptData, InvalidInput, Refused
from diredi.jobs import job_folder
from diredi.rpc import convert
from diredi.rpc.client import connect, is_serving
from diredi.rpc.message_signature import check_message
from diredi.rpc.v1 import sites_pb2
from diredi.trust import ca
from diredi.trust.identity import Identity, Role
from tests.support.pki import Pki
from tests.support.waiting import until
from user_domain.cloud import ATTEMPTS
from user_domain.failure_reasons import Reason
from user_domain.samples import Box, SampleStore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_processes")]


async def test_an_extraction_ends_in_a_gap_whose_blobs_the_cloud_has(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.extract_task(cloud, recipe=RECIPE | {"student_gap": True}))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki) as local:
        await until(lambda: bool(cloud.site.gaps))
        status = await local.status()
    gap = cloud.site.gaps[0]
    for encoded in (gap.tutor_gap, gap.student_gap):
        assert cloud.store.blob(encoded.blob.digest).bytes == encoded.blob.bytes
        assert encoded.blob.bytes < encoded.fp32_bytes / 3
    assert gap.tutor_gap.base_id == models.extract_task(cloud).tutor.id
    assert [item.name for item in gap.labels.classes] == list(CLASSES), "known names keep their ids, new ones come next"
    assert (gap.train_images, gap.held_out_images) == (8, 4)
    assert dict(gap.boxes) == {}, "eight boxes of a class are too few to be told"
    assert gap.HasField("student_before")
    assert gap.HasField("tutor_after")
    assert not gap.HasField("style"), "not published unless the site says so"
    check_message(gap, pki.credentials("site", "site-1").certificate)
    steps = [step for step, _, _ in cloud.site.progress]
    assert steps[0] == "begin"
    assert {"tutor-2", "student-gap"} <= set(steps)
    assert cloud.site.callers == {"site/site-1"}
    assert (status.train_images, status.held_out_images, status.cloud_online) == (8, 4, True)
    assert status.private_bytes > 10_000
    assert dict(status.sent_bytes) == cloud.received.totals("site/site-1"), "counted here as counted there"
    assert not cloud.site.failures


async def test_a_known_class_in_another_spelling_ends_the_task_before_the_cloud_hears_of_it(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    data = write_data_set(tmp_path / "set")
    data.write_text(data.read_text().replace("person", "Person"))
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki):
        await until(lambda: bool(cloud.site.gaps or cloud.site.failures))
    assert cloud.site.failures == [("cycle-1/extract", Reason.CLASSES)]
    assert cloud.site.labels.names == ("car", "person")


async def test_a_class_that_may_be_a_known_one_is_shown_before_the_cycle_is_approved_and_ends_it_undecided(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    data = write_data_set(tmp_path / "set")
    data.write_text(data.read_text().replace("person", "persons"))
    await cloud.site.offer(models.extract_task(cloud, approved=False))
    config = config_of(tmp_path / "site", pki, cloud.address, data, approval="ask")
    async with running(config, pki) as local:
        await until(lambda: waits_for(local, "cycle-1"))
        status = json.loads(await at_the_site(config, "status", "--json"))
        assert status["class_proposals"] == {"persons": "person"}
        await at_the_site(config, "approve", "cycle-1", "--yes")
        await until(lambda: bool(cloud.site.gaps or cloud.site.failures))
        after = await local.status()
    assert cloud.site.failures == [("cycle-1/extract", Reason.CLASSES)]
    assert 'class_names: {"persons": "person"}' in after.last_error
    assert not {"diredi.v1.GetBlobRequest", "diredi.v1.ProposeClassesRequest"} & set(after.sent_bytes)


async def test_the_site_decides_which_class_is_a_known_one_and_which_another(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    data = write_data_set(tmp_path / "set")
    data.write_text(data.read_text().replace("person", "persons").replace("car", "cars"))
    await cloud.site.offer(models.extract_task(cloud))
    decided = {"persons": "person", "cars": "cars"}
    async with running(config_of(tmp_path / "site", pki, cloud.address, data, class_names=decided), pki):
        await until(lambda: bool(cloud.site.gaps or cloud.site.failures))
    assert not cloud.site.failures
    gap = cloud.site.gaps[0]
    assert [item.name for item in gap.labels.classes] == ["car", "person", "cars", "forklift"]


async def test_a_name_for_a_class_that_the_data_lack_is_told_at_the_start(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, data, class_names={"lorry": "truck"})
    with pytest.raises(InvalidInput, match="class_names has 'lorry', which is no class of"):
        async with running(config, pki):
            pass


async def test_labels_that_are_probably_wrong_are_shown_at_the_site_alone(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data_set(tmp_path / "set", 6, 2)
    label = next((data.parent / "labels" / "train").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.4 0.4\n1 0.5 0.5 0.4 0.41\n")
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data, audit_images=6), pki):
        await until(lambda: bool(cloud.site.gaps or cloud.site.failures))
    assert not cloud.site.failures
    told = next(line for line in capsys.readouterr().out.splitlines() if "labels_audited" in line)
    (page,) = (tmp_path / "site" / "jobs").rglob("label-audit.html")
    assert str(page) in told and "duplicate" in told
    assert "data:image/" in page.read_text(), "with pictures"
    assert "duplicate" not in str(cloud.site.gaps[0])


async def test_images_without_a_label_file_count_as_not_labelled(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data_set(tmp_path / "set")
    for label in sorted((data.parent / "labels" / "train").iterdir())[:5]:
        label.unlink()
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki):
        await until(lambda: bool(cloud.site.gaps or cloud.site.failures))
    assert not cloud.site.failures
    (gap,) = cloud.site.gaps
    assert gap.train_images == 3
    (said,) = (one for one in gap.decisions if one.subject == "images without a label file")
    assert said.choice == "left out" and "5 images" in said.because
    assert capsys.readouterr().out.count("5 of 12 images have no label file") == 1


async def test_a_site_that_publishes_its_style_says_so_first_and_sends_statistics(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data, publish_style=True), pki):
        await until(lambda: bool(cloud.site.gaps or cloud.site.failures))
    assert cloud.site.publish_style, "known before anybody approves"
    SiteStyle.model_validate(convert.struct_from(cloud.site.gaps[0].style))


async def test_a_validation_ends_in_metrics_of_the_candidate(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.validate_task(cloud))
    config = config_of(tmp_path / "site", pki, cloud.address, write_data_set(tmp_path / "known", classes=2))
    take_part(config)
    async with running(config, pki):
        await until(lambda: bool(cloud.site.validations or cloud.site.failures))
    assert cloud.site.validations[0].after.images == 4


async def waits_for(local: Local, cycle: str) -> bool:
    return (await local.status()).cycle_id == cycle


async def test_a_declined_cycle_that_was_waiting_is_forgotten(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data, approval="ask"), pki) as local:
        await until(lambda: waits_for(local, "cycle-1"))
        cancel = sites_pb2.Task(id="cycle-1/cancel", kind=sites_pb2.TASK_KIND_CANCEL, cycle_id="cycle-1")
        await cloud.site.offer(cancel)
        await until(lambda: waits_for(local, ""))


async def test_a_cancelled_cycle_stops_its_job_and_the_next_one_is_worked_on(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    endless = {"form": "weights", "tutor": {"epochs": 100_000, "batch": 4}, "coreset_images": 0}
    await cloud.site.offer(models.extract_task(cloud, recipe=endless))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data, approval="always"), pki) as local:
        await until(lambda: any(step == "tutor-2" for step, _, _ in cloud.site.progress))
        jobs = job_processes(tmp_path)
        assert jobs
        cloud.site.tasks.clear()
        cancel = sites_pb2.Task(id="cycle-1/cancel", kind=sites_pb2.TASK_KIND_CANCEL, cycle_id="cycle-1")
        await cloud.site.offer(cancel)
        await until(lambda: waits_for(local, ""))
        assert not job_processes(tmp_path)
        await cloud.site.offer(models.extract_task(cloud, "cycle-2"))
        await until(lambda: bool(cloud.site.gaps))
    assert not cloud.site.failures


def job_processes(folder: Path) -> list[str]:
    """Command lines of running jobs whose work folder is under `folder`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "diredi.jobs" in line and str(folder) in line:
            found.append(line)
    return found


async def test_a_cycle_that_the_cloud_gave_up_meanwhile_is_dropped_at_the_next_word_of_progress(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    endless = {"form": "weights", "tutor": {"epochs": 100_000, "batch": 4}, "coreset_images": 0}
    await cloud.site.offer(models.extract_task(cloud, recipe=endless))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data, approval="always"), pki) as local:
        await until(lambda: any(step == "tutor-2" for step, _, _ in cloud.site.progress))
        cloud.site.tasks.clear()
        await until(lambda: waits_for(local, ""))
        assert not job_processes(tmp_path)
    assert not cloud.site.failures


async def test_a_cloud_that_goes_away_in_mid_work_finds_the_work_done_when_it_is_back(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki) as local:
        await until(lambda: any(step == "tutor-2" for step, _, _ in cloud.site.progress))
        await cloud.stop()
        await until(lambda: is_offline(local))
        await until(lambda: bool(list((tmp_path / "site" / "jobs").rglob("result.json"))))
        results = [path.stat().st_mtime_ns for path in (tmp_path / "site" / "jobs").rglob("result.json")]
        await cloud.start()
        await until(lambda: bool(cloud.site.gaps))
        after = [path.stat().st_mtime_ns for path in (tmp_path / "site" / "jobs").rglob("result.json")]
    assert after == results, "the job's result is used, not worked out again"


async def is_offline(local: Local) -> bool:
    return not (await local.status()).cloud_online


async def test_a_user_domain_starts_while_the_cloud_is_away(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path, jpeg: bytes
) -> None:
    await cloud.stop()
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki) as local:
        assert not (await local.status()).cloud_online
        assert await local.hand(jpeg)
        await cloud.start()
        await until(lambda: bool(cloud.site.gaps))


SITE_CALLS = ("WatchTasks", "ReportProgress", "ProposeClasses", "SubmitGap")


async def test_a_cloud_that_fails_at_every_call_for_a_while_costs_no_task(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    for method in SITE_CALLS:  # more often than a single call is tried
        cloud.site.fails[method] = [RuntimeError("a defect") for _ in range(ATTEMPTS + 2)]
    await cloud.site.offer(models.extract_task(cloud))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki) as local:
        await until(lambda: has_error(local, "internal error"))
        await until(lambda: bool(cloud.site.gaps or cloud.site.failures))
        await until(lambda: waits_for(local, ""))
        assert (await local.status()).last_error == ""
    assert not any(cloud.site.fails.values()), "each was asked again"
    assert (len(cloud.site.gaps), cloud.site.failures) == (1, [])


async def has_error(local: Local, words: str) -> bool:
    return words in (await local.status()).last_error


@pytest.mark.parametrize("times", [2, 100])
async def test_a_validation_that_arrives_damaged_is_sent_again_and_told_as_failed_only_if_that_stays(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, times: int
) -> None:
    cloud.site.fails["SubmitValidation"] = [CorruptData("bytes of /secret/path are damaged") for _ in range(times)]
    await cloud.site.offer(models.validate_task(cloud))
    config = config_of(tmp_path / "site", pki, cloud.address, write_data_set(tmp_path / "known", classes=2))
    take_part(config)
    async with running(config, pki):
        await until(lambda: bool(cloud.site.validations or cloud.site.failures))
    told = [] if times == 2 else [("cycle-1/validate", "the cloud refused what the site worked out")]
    assert (len(cloud.site.validations), cloud.site.failures) == (int(times == 2), told)


async def test_that_a_task_makes_no_sense_is_told_until_the_cloud_has_heard_it(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    cloud.site.fails["FailTask"] = [RuntimeError("a defect") for _ in range(2 * ATTEMPTS)]
    await cloud.site.offer(sites_pb2.Task(id="cycle-0/extract", kind=sites_pb2.TASK_KIND_EXTRACT, cycle_id="cycle-0"))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki):
        await until(lambda: bool(cloud.site.failures))
    assert cloud.site.failures == [("cycle-0/extract", "the task itself is not usable")]


async def test_a_site_whose_state_files_are_all_damaged_starts_and_does_its_work_again(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    known = write_data_set(tmp_path / "known", classes=2)
    consent = tmp_path / "site" / "consent.jsonl"
    for damage in (b"", b'{"cut": ', b"\xff\x00 garbage"):
        await cloud.site.offer(models.validate_task(cloud))
        config = config_of(tmp_path / "site", pki, cloud.address, known)
        consent.unlink(missing_ok=True)
        take_part(config)
        async with running(config, pki):
            await until(lambda: bool(cloud.site.validations or cloud.site.failures))
        cloud.site.validations.clear()
        results = list((tmp_path / "site" / "jobs").rglob("result.json"))
        for path in (tmp_path / "site" / "egress.json", tmp_path / "site" / "journal.json", *results):
            path.write_bytes(damage)
        consent.write_bytes(damage)
        take_part(config)
        await cloud.site.offer(models.validate_task(cloud))
        async with running(config, pki) as local:
            assert "counted since" in (await local.status()).last_error
            await until(lambda: bool(cloud.site.validations or cloud.site.failures))
        assert (len(results), cloud.site.failures, cloud.site.validations[0].after.images) == (1, [], 4)
        cloud.site.validations.clear()
    set_aside = sorted(path.name for path in (tmp_path / "site").rglob("*.damaged-*"))
    assert set_aside == [f"{name}.json.damaged-{n}" for name in ("egress", "journal", "result") for n in (1, 2, 3)]


async def test_a_defect_that_a_task_brings_to_light_fails_that_task_and_not_the_service(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, write_data_set(tmp_path / "known", classes=2))
    take_part(config, "cycle-1", "cycle-2")
    folder = job_folder(config.state_dir / "jobs", "cycle-1") / "validate"
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the job wants a folder")
    await cloud.site.offer(models.validate_task(cloud))
    async with running(config, pki):
        await until(lambda: bool(cloud.site.failures))
        assert cloud.site.failures == [("cycle-1/validate", "the work at the site failed: its own log says why")]
        await cloud.site.offer(models.validate_task(cloud, "cycle-2"))
        await until(lambda: len(cloud.site.validations) == 1)


BAD = {
    "recipe": ("the site cannot work with the models, the recipe or the data of this task: its own log says why"),
    "tutor": ("a model or coreset of the task could not be fetched and verified"),
    "full": ("the cloud has no room for the gap"),
    "refused": ("the cloud refused what the site worked out"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_failure_is_told_in_a_fixed_sentence_and_only_once(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path, what: str
) -> None:
    task = models.extract_task(cloud, recipe={"tutor": {"epochs": -1}} if what == "recipe" else None)
    if what == "tutor":
        task.tutor.weights.digest = "sha256:" + "0" * 64
    cloud.blobs.full = what == "full"
    cloud.site.refuse_gap = InvalidInput("a NaN in /secret/path") if what == "refused" else None
    await cloud.site.offer(task)
    config = config_of(tmp_path / "site", pki, cloud.address, data)
    async with running(config, pki) as local:
        await until(lambda: bool(cloud.site.failures))
        assert (await local.status()).last_error
    assert cloud.site.failures == [("cycle-1/extract", BAD[what])]
    assert not cloud.site.gaps
    cloud.site.refuse_gap, cloud.blobs.full = None, False
    await cloud.site.offer(task)
    async with running(config, pki):
        await until(lambda: len(cloud.site.failures) == 2)
    assert not cloud.site.gaps, "a task that failed is not begun again, its failure is said again"


async def test_a_data_set_that_broke_is_told_without_naming_its_files(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models
) -> None:
    path = write_data_set(tmp_path / "set")
    async with running(config_of(tmp_path / "site", pki, cloud.address, path), pki) as local:
        next((tmp_path / "set" / "labels" / "train").iterdir()).write_text("0 7 7 7 7\n")
        await cloud.site.offer(models.extract_task(cloud))
        await until(lambda: bool(cloud.site.failures))
        assert "private-gate-train" in (await local.status()).last_error, "the site itself hears which file"
    assert cloud.site.failures[0][1] == "the site's data set cannot be used: its own log says why"


async def test_a_task_that_makes_no_sense_is_failed_and_the_stream_goes_on(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(sites_pb2.Task(id="cycle-0/extract", kind=sites_pb2.TASK_KIND_EXTRACT, cycle_id="cycle-0"))
    async with running(config_of(tmp_path / "site", pki, cloud.address, data), pki):
        await until(lambda: bool(cloud.site.failures))
        assert cloud.site.failures == [("cycle-0/extract", "the task itself is not usable")]
        await cloud.site.offer(models.extract_task(cloud))
        await until(lambda: bool(cloud.site.gaps))


async def test_a_sample_is_stored_once_and_a_full_site_keeps_what_teaches_most(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path, jpeg: bytes
) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, data, max_samples=2)
    async with running(config, pki) as local:
        assert await local.hand(jpeg)
        assert not await local.hand(jpeg)
        assert await local.hand(jpeg + b"\0", doubt=0.5)
        assert not await local.hand(jpeg + b"\0\0", doubt=0.1)
        assert await local.hand(jpeg + b"\0\0\0", doubt=0.9)
        for bad in (b"", b"GIF89a", jpeg[:30], bytes(8 * 2**20 + 1)):
            with pytest.raises(InvalidInput):
                await local.hand(bad)
        with pytest.raises(Refused):
            await local.hand(jpeg, device="camera-2")
    async with running(config, pki) as local:
        assert (await local.status()).samples == 2
        assert not await local.hand(jpeg)
    assert not any("Sample" in name for name in cloud.received.totals("site/site-1"))


async def test_a_site_begins_with_nothing_and_learns_from_the_samples_that_somebody_has_labelled(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, jpeg: bytes
) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, "samples", samples_held_out=0.5)
    async with running(config, pki) as local:
        for number in range(8):
            assert await local.hand(jpeg + bytes(number))
        assert (await local.status()).train_images == 0
        await cloud.site.offer(models.extract_task(cloud))
        await until(lambda: bool(cloud.site.failures))
        assert "nobody has labelled a sample yet" in (await local.status()).last_error
    store = SampleStore(config.state_dir / "samples", 100)
    for info in store.find():
        assert (info.camera, info.detections[0].name, info.reasons) == ("camera-1", "car", (SampleReason.UNCERTAIN,))
        store.set_labels(info.id, [Box(name="forklift", x=0.5, y=0.5, width=0.5, height=0.5)])
    async with running(config, pki) as local:
        status = await local.status()
        assert (status.train_images, status.held_out_images, status.samples) == (4, 4, 0)


async def test_only_devices_of_the_site_hand_samples_over_and_the_cloud_may_not_even_look(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path, jpeg: bytes
) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, data)
    strangers = [
        pki.credentials("device", "stranger", "site-2"),
        pki.credentials("cloud", "cloud"),
        pki.credentials("operator", "alice"),
        pki.credentials("site", "site-2"),
    ]
    async with running(config, pki):
        for credentials in strangers:
            local = Local(config.listen, credentials)
            with pytest.raises(Refused):
                await local.status()
            with pytest.raises(Refused):
                await local.hand(jpeg, device=credentials.identity.name)
            await local.channel.close()


async def test_health_and_reflection_answer(tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path) -> None:
    config = config_of(tmp_path / "site", pki, cloud.address, data)
    async with (
        running(config, pki),
        connect(config.listen, pki.credentials("operator", "alice"), server=Identity(Role.SITE, "site-1")) as channel,
    ):
        assert await is_serving(channel)
        assert await is_serving(channel, "diredi.v1.LocalService")


async def test_no_task_of_an_impostor_is_taken(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    """In the cloud's place stands another site of our authority, whose certificate fits the address."""
    await cloud.stop()
    impostor = SiteCloud(tmp_path / "impostor", pki, pki.credentials("site", "site-2"))
    await impostor.site.offer(models.extract_task(impostor))
    await impostor.start()
    with capture_logs() as logs:
        async with running(config_of(tmp_path / "site", pki, impostor.address, data), pki):
            await until(lambda: any("it is somebody else" in line.get("why", "") for line in logs))
    await impostor.stop()
    assert impostor.site.watchers == 0 and impostor.site.callers == set()


async def test_a_renewed_certificate_in_the_folder_is_used_without_a_restart_and_the_old_one_may_be_revoked(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    await cloud.stop()
    pki.anew("cloud", "cloud", out=tmp_path / "cloud-identity")
    old = pki.anew("site", "site-1", out=tmp_path / "site-identity")
    cloud.identity = tmp_path / "cloud-identity"
    await cloud.start()
    config = config_of(tmp_path / "site", pki, cloud.address, data, identity=tmp_path / "site-identity")
    with capture_logs() as logs:
        async with running(config, pki) as local:
            await until(lambda: cloud.site.watchers == 1)
            pki.anew("site", "site-1", out=tmp_path / "site-identity")
            await until(lambda: any(line["event"] == "identity_renewed" for line in logs))
            ca.revoke(pki.folder / "ca", [], [old.certificate])
            shutil.copy(pki.folder / "ca" / "crl.pem", tmp_path / "cloud-identity")
            await until(lambda: cloud.site.watchers == 2)
            assert (await local.status()).cloud_online
    assert any("was revoked" in line.get("why", "") for line in logs), "the old one was in use until then"
