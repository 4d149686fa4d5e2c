"""Rows of a large fleet, put into the database directly: sites, devices, releases, and cycles of every end."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import insert

from cloud_server.cycles import transitions
from cloud_server.entities import Cycle, Model, Part, ReleaseStatus, Rollout
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.schema import DeviceRow, InstallRow
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob
from tests.unit.cloud_server.samples import digest, manifest, metrics

HOSTILE = "<img src=x onerror=alert(1)>"
RUNTIMES = ("openvino int8 on CPU", "onnxruntime on CPU", "tensorrt fp16 on Orin")


def fill(r: Repository, now: datetime, devices: int = 10_000, sites: int = 40) -> None:
    """Add devices, each of which has once installed release 1; some are away, have failed, or end soon."""
    session = r.devices._session
    names = [f"site-{number:02}" for number in range(1, sites)] + [HOSTILE]
    for name in names:
        r.sites.record_contact(name, now, auto_approve=name.endswith("5"))
    keys = [f"{names[number % sites]}/camera-{number:05}" for number in range(devices)]
    session.execute(
        insert(DeviceRow),
        [
            {
                "key": key, "name": key.rpartition("/")[2], "site": names[number % sites],
                "release_version": 1 + (number % 3 == 0), "frames": 100_000 + number, "frames_per_second": 12.5,
                "latency_ms": 20 + number % 17, "sources": {"front": "ok"},
                "drifts": {"front": "light"} if number % 307 == 0 else {}, "update_wait": "",
                "failed_frames": 5000 * (number % 97 == 0),
                "certificate_expires": now + timedelta(days=10 if number % 211 == 0 else 80),
                "updates_stalled": number % 331 == 0, "runtime": RUNTIMES[number % 3],
                "last_seen": now - timedelta(seconds=9000 if number % 53 == 0 else -600),
            }
            for number, key in enumerate(keys)
        ],
    )  # fmt: skip
    session.execute(
        insert(InstallRow),
        [
            {
                "device": key, "release_version": 1 + failed,
                "outcome": "failed" if failed else "installed", "reason": "the file does not load" if failed else "",
                "at": now - timedelta(days=20 - 12 * failed, minutes=number % 600),
            }
            for number, key in enumerate(keys) for failed in ((0, 1) if number % 401 == 0 else (0,))
        ],
    )  # fmt: skip


def add_cycle(r: Repository, number: int, now: datetime, end: State = State.RELEASED, *sites: str) -> Cycle:
    """Add a cycle that has gone as far as `end`, with the steps before it, and the release that it made."""
    base = r.releases.current()
    assert base is not None
    parts = tuple(Part(site=site, progressed_at=now) for site in sites or ("site-01",))
    cycle = r.cycles.add(
        Cycle(
            id=f"cycle-{number:04}", request_id=f"request-{number}", state=State.REQUESTED, recipe={"lam": None},
            base_tutor_id=base.tutor_id, base_student_id=base.student_id, progressed_at=now, created=now, parts=parts,
        ),
        "operator/alice", "asked for",
    )  # fmt: skip
    known = r.models.get(base.student_id).labels
    labels = known.expand([f"class {number} {HOSTILE}"]) if end is State.RELEASED else known
    for part in cycle.parts:
        transitions.offer(r, cycle.id, part.site, now, auto_approve=False, publish_style=False)
        if end is State.DECLINED:
            transitions.decline(r, cycle.id, part.site, "not in the harvest", now)
        elif end is not State.OFFERED:
            transitions.approve(r, cycle.id, part.site, now)
            gap = manifest(cycle.id, labels, base.tutor_id)
            r.cycles.move_part(cycle.id, part.site, State.EXTRACTING, now, f"site/{part.site}", "begun")
            r.cycles.move_part(
                cycle.id, part.site, State.UPLOADED, now, f"site/{part.site}", "gap uploaded",
                gap=gap.model_dump(mode="json"), before=gap.student_before.model_dump(mode="json"),
            )  # fmt: skip
    if end in {State.OFFERED, State.DECLINED, State.UPLOADED}:
        return r.cycles.get(cycle.id)
    if end is State.FAILED:
        return r.cycles.move(cycle.id, State.FAILED, now, "cloud", "the job died three times")
    shown = {"before": metrics(0.62).model_dump(mode="json"), "after": metrics(0.66).model_dump(mode="json")}
    tutor, student = (_model(r, kind, number, labels, cycle.id, now) for kind in ("tutor", "student"))
    r.cycles.move(
        cycle.id, State.APPLIED, now, "cloud", "λ = 0.8", shown | {"lam": 0.8}, updated_tutor_id=tutor.id
    )  # fmt: skip
    r.cycles.move(cycle.id, State.GATED, now, "cloud", "mAP50 on presumed images 0.620 to 0.660", shown)
    r.cycles.move(cycle.id, State.REDISTILLED, now, "cloud", "gap", shown, updated_student_id=student.id)
    rollout = Rollout(steps=(5, 25, 100))
    release = r.releases.add(student, tutor.id, ReleaseStatus.CANARY, (), cycle.id, now, rollout=rollout)
    r.cycles.move(cycle.id, State.CANARY, now, "cloud", "made", {}, release_version=release.version)
    for part in cycle.parts:
        r.cycles.change_part(
            cycle.id, part.site, now, after=metrics(0.71, car=0.8, forklift=0.6).model_dump(mode="json")
        )
    r.releases.set_status(release.version, ReleaseStatus.RELEASED, now)
    return r.cycles.move(cycle.id, State.RELEASED, now, "cloud", "installed on the canaries")


def _model(r: Repository, kind: str, number: int, labels: LabelSpace, cycle_id: str, now: datetime) -> Model:
    of = digest(f"{number % 10}{'ab'[kind == 'student']}")[:71]
    per_class = {name: 0.5 + 0.03 * (number % 10) - 0.02 * place for place, name in enumerate(labels.names)}
    blob = Blob(of, 9)
    return r.models.add(
        Model(
            id=of, kind=kind, architecture="yolo11n", image_size=64, labels=labels, weights=blob, onnx=blob,
            cycle_id=cycle_id, presumed=metrics(0.6 + number / 100, **per_class), created=now,
        )
    )  # fmt: skip
