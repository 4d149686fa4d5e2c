"""Real peers over gRPC: what travels and how fast, predictions beside weights, ours beside Flower: `make bench-peers`.

"what travels": peers on digits that all ask each other, over mutual TLS. With predictions of 400 public images
(multi-headed distillation, four heads and embeddings) or with weights (averaging). "KB sent" are by a peer in a round,
as counted on the wire; "round s" holds the learning, of 60 images a peer, and is the median of the later rounds of the
slowest peer.

"weights of YOLO11n": one round of FedAvg, 10.6 MB down and up for each client, no training, a process each. Ours is a
star of peers over mutual TLS, with schemas and numbers checked and a mean made; "bare stream" is gRPC alone, without
TLS, checks or a mean: the floor; Flower is its deployment engine without TLS. "round s" is the median of later rounds,
"CPU s" are of all processes from start to end. "our bytes" are as counted on the wire.

No two programs run at once. Flower is not asked for 32 clients, which would take longer than all the rest. `QUICK=1`
has small networks and few clients.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from environment import QUICK, ROOT, empty_folder
from harness import parser_of, report_results
from matplotlib.ticker import NullLocator
from programs import FLOWER, flower_python, run_program
from report import COMMIT, HERE, Json, cached, target

from diredi.detectors import registry
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

SEEDS = (0, 1)
"""Seconds and bytes hardly know the seed, and Flower with eight clients takes minutes each time."""
SIDES = HERE / "wire"
PEERS = {"mlp": (3,)} if QUICK else {"cnn": (3, 8), "resnet18": (3,)}
"""Backbone to numbers of peers: eight ResNet-18 that learn on one machine say nothing of the wire."""
CLIENTS = (2,) if QUICK else (2, 8, 32)
FLOWER_CLIENTS = (2,) if QUICK else (2, 8)
LEARNERS = {"predictions": "multihead_learner:create_learner", "weights": "fedavg_learner:create_learner"}
TRAVELS, ROUND, BYTES = "what travels", "weights of YOLO11n", "our bytes"


def peers_of(spec: Json, folder: Path) -> Json:
    """Peers that learn digits from each other."""
    training = {"epochs": 1, "batch": 32}
    options: Json = {"network": {"backbone": spec["backbone"]}, "training": training}
    if spec["exchange"] == "predictions":
        options["multihead"] = {"auxiliary": 3}
    config = {
        "peers": spec["peers"],
        "rounds": spec["rounds"],
        "seed": spec["seed"],
        "learner": f"peer_node.{LEARNERS[spec['exchange']]}",
        "data": {"private": 60 * spec["peers"], "public": 400},
        "options": options,
        "deadline_s": 300,
        "start_s": 300,
    }
    found = run_peers(config, folder)
    rounds = [[one["seconds"] for one in peer["rounds"][1:]] for peer in found]
    sent = mean(sum(peer["sent_bytes"].values()) for peer in found) / spec["rounds"]
    return {"KB sent": sent / 1e3, "round s": max(median(seconds) for seconds in rounds)}


def our_round(spec: Json, folder: Path) -> Json:
    payload = weights(folder).stat().st_size
    config = {
        "peers": 1 + spec["clients"],
        "rounds": spec["rounds"],
        "topology": {"kind": "star"},
        "learner": "wire.idle:learner",
        "data": {"file": str(weights(folder))},
        "deadline_s": 300,
        "start_s": 300,
    }
    found = run_peers(config, folder)
    sent = sum(sum(peer["sent_bytes"].values()) for peer in found)
    hub = [one["seconds"] for one in found[0]["rounds"]]
    assert all(one["learned"]["heard"] == spec["clients"] for one in found[0]["rounds"])
    return {
        "round s": median(hub[1:]),
        "CPU s": json.loads((folder / "ran.json").read_text())["cpu_s"],
        "MB a round": sent / spec["rounds"] / 1e6,
        "over payload": sent / (2 * spec["clients"] * spec["rounds"] * payload),
    }


def other_round(side: str, spec: Json, folder: Path) -> Json:
    """Of the bare stream, or of Flower."""
    weights(folder)
    (folder / "spec.json").write_text(json.dumps(spec))
    commands = {
        "bare stream": [sys.executable, str(SIDES / "floor.py"), str(folder)],
        "Flower": [sys.executable, str(SIDES / "flower.py"), str(folder), str(FLOWER / "bin")],
    }
    program = run_program(commands[side], folder)
    ended = json.loads((folder / "found.json").read_text())["ended"]
    return {"round s": median(np.diff(ended)[-spec["rounds"] + 1 :].tolist()), "CPU s": program.cpu_s}


def run_peers(config: Json, folder: Path) -> list[Any]:
    """The summaries of all peers."""
    (folder / "peers.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "diredi_cli", "peers", "run", "--config", str(folder / "peers.yaml")]
    path = os.pathsep.join([str(HERE), str(ROOT)])
    program = run_program(
        [*command, "--out", str(folder / "out"), "--json"], folder, PYTHONPATH=path, OMP_NUM_THREADS="1"
    )
    (folder / "ran.json").write_text(json.dumps({"cpu_s": program.cpu_s}))
    names = [f"peer-{number}" for number in range(1, config["peers"] + 1)]
    found = [json.loads((folder / "out" / f"{name}.json").read_text()) for name in names]
    missing = [one["missing"] for peer in found for one in peer["rounds"] if one["missing"]]
    if missing or not all(peer["ended"] for peer in found):
        raise RuntimeError(f"not all were heard: {missing[:1]}, see {folder}")
    return found


def weights(folder: Path) -> Path:
    """Of an untrained YOLO11n for COCO's number of classes, for each side in the form that it reads."""
    path = folder / "weights.safetensors"
    if not path.exists():
        labels = LabelSpace(names=tuple(f"class-{number}" for number in range(80)))
        found: WeightMap = registry.create("yolo11n", 640, labels, 0, device="cpu").weights()
        found.save(path)
        arrays: dict[str, Any] = dict(found)
        np.savez(folder / "weights.npz", **arrays)
    return path


def measure(seed: int, folder: Path) -> Json:
    flower_python()
    travels, rounds = {}, {}
    shared = {"seed": seed, "rounds": 3 if QUICK else 4}
    for backbone, numbers in PEERS.items():
        for peers in numbers:
            for exchange in LEARNERS:
                spec = {**shared, "backbone": backbone, "peers": peers, "exchange": exchange}
                name = f"{backbone}, {peers} peers: {exchange}"
                travels[name] = cell(folder / f"seed-{seed}" / name, spec, peers_of)
    for clients in CLIENTS:
        for side, make in (
            ("DiReDi", our_round),
            ("bare stream", lambda s, p: other_round("bare stream", s, p)),
            ("Flower", lambda s, p: other_round("Flower", s, p)),
        ):
            if side != "Flower" or clients in FLOWER_CLIENTS:
                length = {"rounds": 2 if side == "Flower" else 6}
                name = f"{side}, {clients} clients"
                rounds[name] = cell(folder / f"seed-{seed}" / name, {**shared, **length, "clients": clients}, make)
    weighed = ("MB a round", "over payload")
    ours = {f"{n} clients": {name: rounds[f"DiReDi, {n} clients"][name] for name in weighed} for n in CLIENTS}
    timed = {form: {name: found[name] for name in ("round s", "CPU s")} for form, found in rounds.items()}
    return {"commits": [COMMIT], "tables": {TRAVELS: travels, ROUND: timed, BYTES: ours}}


def cell(place: Path, spec: Json, make: Any) -> Json:  # noqa: ANN401 - any of the three above
    def made() -> Json:
        empty_folder(place)
        found: Json = make(spec, place)
        return found

    return cached(place.with_name(f"{place.name}.json"), spec, made)


def targets_of(rows: list[Json]) -> list[Json]:
    found = {row["form"]: row for row in rows}
    few, most = min(CLIENTS), max(CLIENTS)
    ours = [found[f"DiReDi, {clients} clients"] for clients in CLIENTS]
    large, (peers, *_) = list(PEERS.items())[-1]
    sent = [found[f"{large}, {peers} peers: {exchange}"]["KB sent"]["mean"] for exchange in LEARNERS]
    flower, floor = (found[f"{side}, {few} clients"]["round s"]["mean"] for side in ("Flower", "bare stream"))
    return [
        target(f"seconds of our round of {few} clients, worst seed", ours[0]["round s"]["high"], "<", 0.5),
        target(f"seconds of our round of {most} clients, worst seed", ours[-1]["round s"]["high"], "<", 3),
        target(
            "our bytes over the payload, worst",
            max(found[f"{n} clients"]["over payload"]["high"] for n in CLIENTS),
            "<",
            1.01,
        ),
        target(f"times as fast as Flower, {few} clients", flower / ours[0]["round s"]["mean"], ">", 1),
        target(f"times a bare stream's round, {few} clients", ours[0]["round s"]["mean"] / floor, "<", 10),
        target(f"{large}, {peers} peers: bytes of predictions over those of weights", sent[0] / sent[1], "<", 1),
    ]


def draw(rows: list[Json], title: str, path: Path) -> None:
    """Bytes of predictions and weights, and seconds of a round by clients."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    ours = [row for row in rows if row["table"] == TRAVELS][::-1]
    left.barh([row["form"] for row in ours], [row["KB sent"]["mean"] for row in ours])
    left.set(xscale="log", xlabel="KB that a peer sends in a round")
    for side in ("DiReDi", "bare stream", "Flower"):
        there = [(n, row) for n in CLIENTS for row in rows if row["form"] == f"{side}, {n} clients"]
        middle = np.array([row["round s"]["mean"] for _, row in there])
        reach = [[abs(row["round s"][end] - row["round s"]["mean"]) for _, row in there] for end in ("low", "high")]
        right.errorbar([n for n, _ in there], middle, reach, marker="o", capsize=3, label=side)
    right.set(xscale="log", yscale="log", xlabel="clients", ylabel="seconds of a round; whiskers: seeds")
    right.xaxis.set_minor_locator(NullLocator())
    right.set_xticks(CLIENTS, map(str, CLIENTS))
    right.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    report_results("peers", parser_of(__doc__, SEEDS, SEEDS).parse_args().seeds, measure, targets_of, draw, SEEDS)
