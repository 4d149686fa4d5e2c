"""What is promised about trust, tried again and again: `make proof`.

Attacks that a test delivers are run as that test. What is random is tried here, as often as the options say: flipped
bits of signed metadata, SIGKILL at random moments, files and messages that were changed at random, a device that floods
a cloud beside honest ones, and streams of devices that one process holds.

The table is written to docs/proof.md and the numbers to bench/results/proof.json. `QUICK=1` tries little of each and
writes to bench/results/quick alone.
"""

# ruff: noqa: ANN401  (what comes from the tests has no types of its own)

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
QUICK = os.environ.get("QUICK", "") not in ("", "0")

METADATA = "tests/unit/trust/test_release_metadata.py::"
EDGE = "tests/services/edge/test_release_attacks.py::"
TLS = "tests/services/rpc/test_mutual_tls.py::"
ENDS = "tests/services/rpc/test_identity_ends.py::"
TESTS: dict[str, dict[str, str]] = {
    "update channel": {
        "rollback: an old repository": METADATA + "test_rollback_to_an_old_repository_is_refused",
        "rollback with a stolen online key": METADATA
        + "test_rollback_of_a_release_with_a_stolen_online_key_is_refused",
        "freeze": METADATA + "test_freeze_is_noticed_and_nothing_is_believed_of_an_old_cloud",
        "mix and match": METADATA + "test_mix_and_match_of_two_published_states_is_refused",
        "not signed": METADATA + "test_a_release_that_is_not_listed_is_refused_whatever_the_cloud_says_of_it",
        "wrong key": METADATA + "test_metadata_of_another_authority_are_refused",
        "below the threshold": METADATA + "test_one_signature_of_two_is_below_the_threshold",
        "endless data": METADATA + "test_endless_data_are_read_no_further_than_metadata_may_reach",
        "data that trickle": "tests/services/rpc/test_watching.py::test_metadata_that_trickle_are_given_up",
        "fast-forward, and rotated roots with a skip": METADATA
        + "test_a_device_follows_rotated_roots_with_a_skip_and_recovers_from_a_fast_forward",
        "a root that the one before did not sign": METADATA + "test_a_root_that_the_one_before_did_not_sign_is_refused",
        "stolen online key": METADATA + "test_a_stolen_online_key_cannot_sign_a_release",
        "nine lies to a running node": EDGE
        + "test_each_lie_about_releases_is_refused_with_its_reason_while_the_old_one_detects",
        "a file put on the disk": EDGE + "test_a_file_that_another_hand_has_put_on_the_disk_does_not_start",
        "restored backup": "tests/services/cloud/test_lost_past.py::"
        "test_a_backup_from_before_the_newest_release_is_refused_until_its_loss_is_accepted",
        "impostor with another's certificate": "tests/services/rpc/test_impostors.py::"
        "test_nobody_of_the_fleet_answers_in_anothers_place",
        "stolen and revoked cloud": ENDS
        + "test_a_stolen_cloud_that_was_revoked_gets_no_byte_and_one_sentence_and_the_next_cloud_is_reached",
    },
    "clients": {
        "plaintext": TLS + "test_a_client_without_tls_never_reaches_a_handler",
        "no certificate": TLS + "test_a_client_without_a_certificate_never_reaches_a_handler",
        "foreign authority": TLS + "test_a_client_with_a_foreign_certificate_never_reaches_a_handler",
        "expired": TLS + "test_a_client_with_an_expired_certificate_never_reaches_a_handler",
        "expired in mid-connection": ENDS
        + "test_an_expired_certificate_ends_its_open_stream_and_call_and_begins_no_more",
        "revoked in mid-connection": ENDS + "test_a_revoked_certificate_ends_its_open_stream_and_call_and_nobody_elses",
        "another's identity": TLS + "test_nobody_speaks_for_another",
        "the cloud revoked in mid-connection": ENDS
        + "test_a_cloud_that_is_revoked_loses_its_open_connections_and_refuses_by_itself_where_it_knows",
    },
    "crashes": {
        "power cut at each step, unsynced bytes lost": "tests/unit/store/test_power_cuts.py",
        "power cut in each state of an update": "tests/unit/edge_node/test_updater.py::"
        "test_after_a_power_cut_in_any_state_the_device_runs_and_the_update_is_finished",
    },
    "hogs": {
        "streams, downloads, calls, connections": "tests/services/rpc/test_hogs.py",
        "uploads, classes, names, installs": "tests/services/cloud/test_cloud_hogs.py",
    },
}


WHOLE = {
    "flips": 1000, "kills": 1000, "files": 200_000, "messages": 100_000, "wire": 20_000, "honest": 200, "flood_s": 30,
    "streams": 10_000,
}  # fmt: skip
"""How often what is random is tried by default."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    group: str
    what: str
    tried: int
    wrong: int
    figure: str
    target: str
    met: bool


def run_tests(groups: dict[str, dict[str, str]]) -> Iterator[Row]:
    """Run the tests that deliver attacks, and yield a row for each attack."""
    nodes = [node for tests in groups.values() for node in tests.values()]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *nodes]
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        cases = list(ElementTree.parse(report).iter("testcase"))
    for group, tests in groups.items():
        for what, node in tests.items():
            file, _, name = node.partition("::")
            module = file.removesuffix(".py").replace("/", ".")
            ours = [
                case
                for case in cases
                if case.get("classname", "") == module and (not name or case.get("name", "").partition("[")[0] == name)
            ]
            failed = sum(any(child.tag in ("failure", "error") for child in case) for case in ours)
            yield Row(group, what, len(ours), failed, "as tested", "all refused", bool(ours) and not failed)


def flip_bits(count: int) -> Row:
    """Flip one bit of the signed metadata at so many places: no other release comes of it."""
    from diredi.errors import Untrusted
    from tests.unit.trust.test_release_metadata import Channel, release

    draw, wrong, refused, harmless = random.Random(0), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        channel = Channel(Path(folder) / "channel")
        path = channel.publish(1)[1]
        files = channel.files()
        for number in range(count):
            name = draw.choice(sorted(files))
            bit = draw.randrange(8 * len(files[name]))

            def flip(asked: str, data: bytes, name: str = name, bit: int = bit) -> bytes:
                if asked != name:
                    return data
                return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]

            channel.tamper = flip
            client = channel.device(f"device-{number}")
            try:
                wrong += client.check(client.prove(path)).file != release(1).file
                harmless += 1
            except Untrusted:
                refused += 1
            except Exception:  # an unclean refusal, which is what is looked for
                wrong += 1
    figure = f"{refused} refused, {harmless} of no consequence"
    return Row("update channel", "flipped bit of the metadata", count, wrong, figure, "0 accepted", not wrong)


def kill_writers(count: int) -> Row:
    """Kill a process with SIGKILL at random moments while it writes, appends, uploads and signs."""
    draw, broken = random.Random(1), 0
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            folder = Path(name) / str(number)
            folder.mkdir()
            child = os.fork()
            if not child:
                with suppress(BaseException):
                    _write_for_ever(folder)
                os._exit(1)
            time.sleep(draw.uniform(0.002, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            broken += not _is_sound(folder)
    return Row("crashes", "SIGKILL at a random moment of a write", count, broken, "", "0 corrupted or lost", not broken)


def _write_for_ever(folder: Path) -> None:
    from diredi.store.blobs import BlobStore, digest_of
    from diredi.store.files import append_durably, atomic_write

    store, number = BlobStore(folder / "blobs"), 0
    while True:
        number += 1
        text = b"%08d" % number
        data = text * 1000
        atomic_write(folder / "state", data)
        append_durably(folder / "log", text + b"\n")
        for offset in range(0, len(data), 3000):
            store.put_chunk(digest_of(data), len(data), offset, data[offset : offset + 3000], owner="site")
        with (folder / "acknowledged").open("wb", buffering=0) as file:
            file.write(text)


def _is_sound(folder: Path) -> bool:
    from diredi.errors import DirediError
    from diredi.store.blobs import BlobStore, digest_of

    acknowledged = folder / "acknowledged"
    text = acknowledged.read_bytes() if acknowledged.exists() else b""
    known = int(text) if len(text) == 8 else 0
    state = (folder / "state").read_bytes() if (folder / "state").exists() else b""
    if known and (len(state) != 8000 or state != state[:8] * 1000 or int(state[:8]) < known):
        return False
    lines = (folder / "log").read_bytes().splitlines() if (folder / "log").exists() else []
    if lines[:known] != [b"%08d" % number for number in range(1, known + 1)]:
        return False
    store = BlobStore(folder / "blobs")
    try:
        return all(store.verify(digest_of(b"%08d" % number * 1000)) for number in range(1, known + 1))
    except DirediError:
        return False


def mutate(draw: random.Random, data: bytes) -> bytes:
    """Change, insert, delete, repeat or cut some bytes."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(changed) + 1)
        match draw.randrange(6):
            case 0 if place < len(changed):
                changed[place] ^= 1 << draw.randrange(8)
            case 1 if place < len(changed):
                changed[place] = draw.choice((0, 1, 127, 128, 255))
            case 2:
                changed[place:place] = draw.randbytes(draw.choice((1, 4, 100)))
            case 3:
                del changed[place : place + draw.choice((1, 4, 100))]
            case 4:
                other = draw.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + 64]
            case _:
                if draw.random() < 0.1:
                    del changed[place:]
    return bytes(changed)


def mutate_files(count: int) -> Iterator[Row]:
    """Hand changed files to their decoders: each gives a value or one of our refusals, and soon."""
    import numpy as np

    from diredi.detectors.spec import DetectorSpec
    from diredi.knowledge.check import check_gap_file
    from diredi.knowledge.gap import Gap, GapNote
    from diredi.labels import LabelSpace
    from diredi.store.weights import WeightMap
    from diredi.trust import ca, enrolment
    from diredi.trust.deny_list import DenyList
    from diredi.trust.identity import Identity, Role
    from tests.unit.trust.test_release_metadata import Channel

    labels = LabelSpace(names=("car", "person"))
    spec = DetectorSpec(architecture="yolo11n", image_size=64, labels=labels)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, path = folder / "base", folder / "changed"
        weights = WeightMap({"model.0.conv.weight": np.ones((8, 3), np.float32)})
        weights.save(base, spec.to_metadata())
        gaps = {
            codec: Gap(weights, GapNote(base_id="b", labels=labels, base_classes=2)).to_bytes(codec)
            for codec in ("fp32-zstd", "int8-row-zstd")
        }
        channel = Channel(folder / "channel")
        target = channel.publish(1)[1]
        metadata = channel.files()

        def decode_gap(draw: random.Random) -> None:
            codec = draw.choice(sorted(gaps))
            path.write_bytes(mutate(draw, gaps[codec]))
            check_gap_file(path, codec, base, "b", labels)

        def decode_weights(draw: random.Random) -> None:
            path.write_bytes(mutate(draw, base.read_bytes()))
            WeightMap.load(path)
            DetectorSpec.of_file(path)

        def decode_metadata(draw: random.Random) -> None:
            role = draw.choice(sorted(metadata))
            changed = mutate(draw, metadata[role])
            channel.tamper = lambda asked, data: changed if asked == role else data
            client = channel.device(f"d{draw.randrange(2**60):x}")
            client.check(client.prove(target))

        ca.init(folder / "ca")
        ca.issue(folder / "ca", "site", "site-1", [], folder / "site-1")
        ca.revoke(folder / "ca", [Identity(Role.SITE, "site-1")])
        holder = Identity(Role.SITE, "site-2")
        made = enrolment.create_token(folder / "ca", holder, [], enrolment.LONGEST_TOKEN)
        token, denied = enrolment.Token("cloud:1", made).encode().encode(), (folder / "ca" / "crl.pem").read_bytes()

        def decode_trust(draw: random.Random) -> None:
            if draw.random() < 0.5:
                enrolment.Token.decode(mutate(draw, token).decode("latin-1"))
            else:
                DenyList.parse(mutate(draw, denied), made.ca)

        kinds: dict[str, tuple[Callable[[random.Random], None], int]] = {
            "gap files": (decode_gap, count * 2 // 5),
            "weight files": (decode_weights, count * 2 // 5),
            "signed metadata": (decode_metadata, count // 50),
            "tokens and deny lists": (decode_trust, count // 10),
        }
        for kind, (decode, times) in kinds.items():
            yield _decode(f"changed {kind}", decode, times)


def mutate_messages(count: int) -> Row:
    """Hand changed messages to the functions that turn them into values."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from tests.unit.rpc.test_decoders import DECODERS, messages

    def samples_of(kind: Any) -> list[bytes]:
        found: list[bytes] = []

        @settings(max_examples=15, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(data=st.data())
        def collect(data: st.DataObject) -> None:
            found.append(data.draw(messages(kind.DESCRIPTOR)).SerializeToString())

        collect()
        return found

    samples = {name: samples_of(kind) for name, (kind, _) in DECODERS.items()}

    def decode(draw: random.Random) -> None:
        from google.protobuf.message import DecodeError

        name = draw.choice(sorted(DECODERS))
        decoder: Any = DECODERS[name]
        kind, convert = decoder
        with suppress(DecodeError):
            convert(kind.FromString(mutate(draw, draw.choice(samples[name]))))

    return _decode("changed messages, decoded", decode, count)


def _decode(what: str, decode: Callable[[random.Random], None], times: int) -> Row:
    from diredi.errors import DirediError

    draw, unclean, slowest, refused = random.Random(2), 0, 0.0, 0
    first = ""
    for _ in range(times):
        began = time.process_time()
        try:
            decode(draw)
        except DirediError:
            refused += 1
        except Exception as error:  # what is looked for
            unclean += 1
            first = first or f"{type(error).__name__}: {error}"[:120]
        slowest = max(slowest, time.process_time() - began)
    figure = f"{refused} refused, the slowest in {slowest * 1000:.0f} ms" + (f"; {first}" if first else "")
    target = "0 crashes or unclean refusals, each under 2 s"
    return Row("bytes", what, times, unclean, figure, target, not unclean and slowest < 2)


async def on_a_cloud(counts: argparse.Namespace, folder: Path) -> list[Row]:
    """Try a real cloud over real TLS: changed messages over each call, a flood, and many streams."""
    from tests.services.cloud.world import World, make_identities

    world = World(folder, make_identities(folder / "pki"))
    world.settings |= {"max_calls_per_s": 1e6}
    rows = []
    async with world.cloud():
        rows.append(await _over_the_wire(world, counts.wire))
    await world.close()
    world.settings |= {"max_calls_per_s": 20.0}
    async with world.cloud():
        rows.append(await _flood(world, counts.honest, counts.flood_s))
    await world.close()
    world.settings |= {"max_calls_per_s": 1e6, "max_streams": 100_000}
    async with world.cloud(keep_alive_s=600):
        rows.append(await _hold_streams(world, counts.streams))
    return rows


async def _over_the_wire(world: Any, count: int) -> Row:
    """Send changed messages over every call, as each identity: whatever comes back is a clean status."""
    import grpc

    from diredi.rpc.v1 import cycles_pb2, enrolment_pb2, fleet_pb2, registry_pb2, releases_pb2, sites_pb2

    draw, codes = random.Random(3), Counter[str]()
    methods = [
        (f"/{service.full_name}/{method.name}", method)
        for module in (cycles_pb2, enrolment_pb2, fleet_pb2, registry_pb2, releases_pb2, sites_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    clients = [world.channel(name) for name in ("site-1", "cam-1", "alice", "vera", "anna")]

    async def one() -> None:
        path, method = draw.choice(methods)
        sample = method.input_type._concrete_class()
        for field in method.input_type.fields:
            with suppress(TypeError, ValueError, AttributeError):
                setattr(sample, field.name, draw.choice(("site-1", "cam-1", "x" * 100, "sha256:" + "0" * 64)))
        data = mutate(draw, sample.SerializeToString() + b"\x0a\x02ab\x12\x00\x18\x01")
        channel = draw.choice(clients)
        try:
            if method.server_streaming:
                call = channel.unary_stream(path, request_serializer=bytes)(data, timeout=10)
                async with asyncio.timeout(0.05):
                    await call.read()
                call.cancel()
            else:
                await channel.unary_unary(path, request_serializer=bytes)(data, timeout=10)
            codes["OK"] += 1
        except TimeoutError:
            call.cancel()
            codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            codes[error.code().name] += 1

    for _ in range(0, count, 16):
        await asyncio.gather(*(one() for _ in range(16)))
    alive = (await world.operator().known_sites()) is not None
    unclean = codes["INTERNAL"] + codes["UNKNOWN"] + codes["DEADLINE_EXCEEDED"] + codes["UNAVAILABLE"]
    figure = _counts(codes)
    return Row(
        "bytes", f"changed messages over {len(methods)} calls", sum(codes.values()), unclean, figure,
        "0 crashes or unclean refusals", alive and not unclean,
    )  # fmt: skip


async def _flood(world: Any, honest: int, seconds: float) -> Row:
    """One device calls without end, beside honest ones that send heartbeats."""
    import grpc

    from diredi.rpc.client import connect
    from diredi.rpc.v1 import fleet_pb2
    from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
    from diredi.trust import ca
    from diredi.trust.identity import Credentials

    request = fleet_pb2.HeartbeatRequest(device="cam-1", release_version=1)
    took, failed, codes, over = list[float](), 0, Counter[str](), asyncio.Event()
    for number in range(honest):
        ca.issue(world.identities / "ca", "device", f"honest-{number}", [], world.folder / f"h{number}", site="site-1")

    async def flood(stub: Any) -> None:
        while not over.is_set():
            codes[(await stub.Heartbeat(request).code()).name] += 1

    async def beat(number: int) -> None:
        nonlocal failed
        async with connect(world.address, Credentials.load(world.folder / f"h{number}")) as channel:
            stub, own = FleetServiceStub(channel), fleet_pb2.HeartbeatRequest(device=f"honest-{number}")
            with suppress(grpc.aio.AioRpcError):
                await stub.Heartbeat(own, timeout=60)  # the handshake is not what is measured
            while not over.is_set():
                began = time.monotonic()
                try:
                    await stub.Heartbeat(own, timeout=10)
                except grpc.aio.AioRpcError:
                    failed += 1
                took.append(time.monotonic() - began)
                await asyncio.sleep(1.0)

    hog = FleetServiceStub(world.channel("cam-1"))
    tasks = [asyncio.create_task(flood(hog)) for _ in range(64)]
    tasks += [asyncio.create_task(beat(number)) for number in range(honest)]
    await asyncio.sleep(seconds)
    over.set()
    await asyncio.gather(*tasks)
    p99 = sorted(took)[int(0.99 * len(took))] if took else float("inf")
    figure = f"99th percentile {p99:.2f} s; the flood: {_counts(codes)}"
    return Row(
        "hogs", f"a device that floods beside {honest} honest ones", len(took), failed, figure,
        "answered within 2 s at the 99th percentile", not failed and p99 < 2,
    )  # fmt: skip


async def _hold_streams(world: Any, count: int) -> Row:
    """Hold the streams of so many devices, each on its own connection from another process, and look at the cost."""
    before = _memory()
    command = [sys.executable, __file__, "--client", world.address, str(world.identities / "cam-1"), str(count)]
    client = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert client.stdout is not None
    open_ = int(await client.stdout.readline() or b"0")
    after, cpu, began = _memory(), time.process_time(), time.monotonic()
    await asyncio.sleep(5 if QUICK else 20)
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    client.terminate()
    await client.wait()
    kib = (after - before) / max(open_, 1) / 1024
    figure = f"{kib:.0f} KiB each, {share:.0%} of a core idle"
    met = open_ == count and kib <= 64 and share < 0.1
    return Row("load", "device streams in one process", count, count - open_, figure, "64 KiB each, under 10 %", met)


def _counts(codes: Counter[str]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in codes.most_common())


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def hold_as_client(address: str, identity: Path, count: int) -> None:
    """Open streams, say how many there are, and hold them until ended."""
    from diredi.rpc.client import connect
    from diredi.rpc.limits import raise_file_limit
    from diredi.rpc.v1 import fleet_pb2
    from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
    from diredi.trust.identity import Credentials

    raise_file_limit()
    credentials, streams = Credentials.load(identity), []
    request = fleet_pb2.WatchReleasesRequest(device=credentials.identity.name)
    async with AsyncExitStack() as stack:
        for begin in range(0, count, 20):
            batch = []
            for _ in range(min(20, count - begin)):
                channel = await stack.enter_async_context(connect(address, credentials))
                batch.append(FleetServiceStub(channel).WatchReleases(request))
            answers = await asyncio.gather(*(stream.read() for stream in batch), return_exceptions=True)
            streams += [s for s, answer in zip(batch, answers, strict=True) if not isinstance(answer, BaseException)]
        print(len(streams), flush=True)
        await asyncio.Event().wait()


def write(rows: list[Row], counts: argparse.Namespace, seconds: float, folder: Path, page: Path) -> None:
    """Write the rows as JSON and as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    command = shlex.join(["python", "bench/proof.py", *sys.argv[1:]])
    found = {
        "command": command, "commit": commit, "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "counts": vars(counts), "processor_s": round(seconds), "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    (folder / "proof.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    lines = [
        "# Proof",
        "",
        "What is promised about trust was tried so often. Each line names its target; `make proof` makes this page and",
        "`bench/results/proof.json`.",
        "",
        f"    {command}",
        "",
        f"{found['machine']}; commit {commit}; {seconds:.0f} s of processor time. {_how_often(counts)}",
        "",
    ]
    for group in dict.fromkeys(row.group for row in rows):
        lines += [
            f"## {group.capitalize()}",
            "",
            "| what | tried | wrong | found | target | met |",
            "|---|--:|--:|---|---|---|",
        ]
        lines += [
            f"| {row.what} | {row.tried:,} | {row.wrong:,} | {row.figure} | {row.target} | {_word(row)} |"
            for row in rows
            if row.group == group
        ]
        lines.append("")
    page.write_text("\n".join([*lines, _NOT_YET]))


def _how_often(counts: argparse.Namespace) -> str:
    smaller = [name for name, count in WHOLE.items() if getattr(counts, name) < count]
    if not smaller:
        return "All counts are those of `make proof`."
    return (
        f"Others worked on the machine, so these counts are smaller than those of `make proof`: {', '.join(smaller)}."
    )


def _word(row: Row) -> str:
    return "yes" if row.met else "no"


_NOT_YET = """## Not in this table

Networks with loss, black holes and partitions of a host; coverage-guided fuzzing of decoders; changed ONNX files, which
a device tries in a process of their own; the tests of `tuf-conformance`; SIGKILL at every named step of a whole cycle
in containers; a target for the architecture of a device. Tests of some of their kinds are in `make test`.
"""


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = {
        "flips": 20, "kills": 10, "files": 500, "messages": 500, "wire": 160, "honest": 5, "flood_s": 3, "streams": 20,
    }  # fmt: skip
    for name, count in (quick if QUICK else WHOLE).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=count, help=f"default: {count}")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out, which `make test` runs, too")
    parser.add_argument("--client", nargs=3, metavar=("ADDRESS", "IDENTITY", "COUNT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Try everything, write what was found, and return 1 where a target is missed."""
    counts = parse()
    if counts.client:
        address, identity, count = counts.client
        asyncio.run(hold_as_client(address, Path(identity), int(count)))
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        said = f"{row.group}: {row.what}: {row.tried} tried, {row.wrong} wrong; {row.figure}"
        print("met   " if row.met else "MISSED", said, flush=True)

    add(kill_writers(counts.kills))  # first: it forks, and no process with a channel may
    add(flip_bits(counts.flips))
    for row in mutate_files(counts.files):
        add(row)
    add(mutate_messages(counts.messages))
    with tempfile.TemporaryDirectory() as folder:
        for row in asyncio.run(on_a_cloud(counts, Path(folder))):
            add(row)
    if not counts.no_tests:
        for row in run_tests(TESTS):
            add(row)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in usage)
    order = list(dict.fromkeys([*TESTS, *(row.group for row in rows)]))
    rows.sort(key=lambda row: order.index(row.group))
    results = ROOT / "bench" / "results" / ("quick" if QUICK else "")
    write(rows, counts, seconds, results, results / "proof.md" if QUICK else ROOT / "docs" / "proof.md")
    return int(not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())
