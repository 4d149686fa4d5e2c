"""Our simulation of many clients against Flower's: `make bench-simulation`.

FedAvg on handwritten digits, dealt evenly to 10, 100 and 1,000 clients who are all awake in every round; the same
network, first weights, data, epochs, batches and rate, and as many processor cores. Each run is a program of its own,
and no two run at once. "first round s" are seconds of the clock from the start of the program to the end of its first
round, "round s" those of a later one (median), "CPU s" the processor's seconds of all its processes from start to end,
"MiB" the most memory that they had together, shared pages counted once.

Flower runs in `runs/flower-venv`, which is made when it is missing; by its `run_simulation`, without the servers that
its command line would start. What is finished is kept in `runs/simulation`: delete it after a change of the code.
`QUICK=1` leaves out 1,000 clients and the convolutional network. Ours stacks the clients of both networks, for images
of 8 x 8 pixels are tiny, and gives every core a chunk.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from environment import QUICK, ROOT, empty_folder
from harness import parser_of, report_results
from numpy.typing import NDArray
from programs import flower_python, run_program
from report import COMMIT, HERE, Json, cached, target

from diredi.data.classification import load

SIDES = HERE / "simulators"
NETWORKS = ("mlp",) if QUICK else ("mlp", "cnn")
CLIENTS = (10, 100) if QUICK else (10, 100, 1000)
LEARNING = {"rounds": 3 if QUICK else 6, "learning_rate": 0.1, "epochs": 2, "batch": 8}
Numbers = NDArray[np.float64]


def commands() -> dict[str, list[str]]:
    """Of each side, without the folder."""
    program = "import sys, flower; flower.main(sys.argv[1])"
    return {"DiReDi": [sys.executable, str(SIDES / "ours.py")], "Flower": [flower_python(), "-c", program]}


def metrics_of(command: list[str], spec: Json, folder: Path) -> Json:
    """The columns of one program."""
    empty_folder(folder)
    (folder / "spec.json").write_text(json.dumps(spec))
    write_data(spec, folder / "data.npz")
    path = os.pathsep.join([str(SIDES), str(ROOT)])
    program = run_program(
        [*command, str(folder)], folder, PYTHONPATH=path, OMP_NUM_THREADS="1", FLWR_HOME=f"{folder}/flower"
    )
    found = json.loads((folder / "found.json").read_text())
    rounds = np.diff([program.began, *found["ended"]])
    return {
        "first round s": rounds[0],
        "round s": median(rounds[1:]),
        "CPU s": program.cpu_s,
        "MiB": program.mib,
        "accuracy": 100 * found["accuracy"],
    }


def write_data(spec: Json, path: Path) -> None:
    digits = load("digits")
    client = np.random.default_rng([spec["seed"]]).permutation(len(digits.train)) % spec["clients"]
    train, test = digits.train, digits.test
    np.savez(
        path,
        images=train.images,
        labels=train.labels,
        client=client,
        test_images=test.images,
        test_labels=test.labels,
    )


def form_name(side: str, clients: int) -> str:
    return f"{side}, {clients} clients"


def measure(seed: int, folder: Path) -> Json:
    sides, cpus = commands(), os.cpu_count() or 1
    tables: dict[str, dict[str, Json]] = {}
    for network in NETWORKS:
        for clients in CLIENTS:
            for side, command in sides.items():
                spec = {"network": network, "clients": clients, "seed": seed, "cpus": cpus, **LEARNING}
                place = folder / f"seed-{seed}" / f"{network}-{clients}-{side}"
                made = cached(place.with_suffix(".json"), spec, partial(metrics_of, command, spec, place))
                tables.setdefault(network, {})[form_name(side, clients)] = made
    return {"commits": [COMMIT], "tables": tables}


def seeds_of(rows: list[Json], network: str, side: str, clients: int, column: str) -> Numbers:
    (row,) = (row for row in rows if row["table"] == network and row["form"] == form_name(side, clients))
    return np.array(row[column]["seeds"])


def targets_of(rows: list[Json]) -> list[Json]:
    """Judged from the rows alone."""
    few, most = min(CLIENTS), max(CLIENTS)
    found = []
    for network in NETWORKS:
        seconds, memory, accuracy = (
            {(side, n): seeds_of(rows, network, side, n, column) for side in ("DiReDi", "Flower") for n in CLIENTS}
            for column in ("round s", "MiB", "accuracy")
        )
        faster = seconds["Flower", 100].mean() / seconds["DiReDi", 100].mean()
        grown = (memory["DiReDi", most] / memory["DiReDi", few]).max()
        found += [
            target(f"{network}: times as fast as Flower at 100 clients, seconds of a round, mean", faster, ">", 5),
            target(f"{network}: our memory at {most} clients over that at {few}, worst seed", grown, "<", 1.1),
            target(f"{network}: accuracy apart beyond the spread of the seeds, points", beyond(accuracy), "<", 1e-9),
        ]
    return found


def beyond(accuracy: Mapping[tuple[str, int], Numbers]) -> float:
    """How much further the means of both sides are apart than the seeds of either, where that is worst."""
    apart = []
    for clients in CLIENTS:
        sides = [accuracy[side, clients] for side in ("DiReDi", "Flower")]
        apart.append(abs(sides[0].mean() - sides[1].mean()) - max(np.ptp(side) for side in sides))
    return float(max(0.0, *apart))


def draw(rows: list[Json], title: str, path: Path) -> None:
    """Seconds of a round and memory against clients, a row of panels for each network."""
    columns = ("round s", "MiB")
    size = (5.0 * len(columns), 3.5 * len(NETWORKS))
    figure, axes = plt.subplots(len(NETWORKS), len(columns), figsize=size, layout="constrained", squeeze=False)
    for network, panels in zip(NETWORKS, axes, strict=True):
        for column, axis in zip(columns, panels, strict=True):
            for side in ("DiReDi", "Flower"):
                values = np.array([seeds_of(rows, network, side, clients, column) for clients in CLIENTS])
                reach = [values.mean(1) - values.min(1), values.max(1) - values.mean(1)]
                axis.errorbar(CLIENTS, values.mean(1), np.maximum(reach, 0), marker="o", capsize=2, label=side)
            axis.set(xscale="log", xlabel="clients", ylabel=column, title=network)
            if column == "MiB":
                axis.set_ylim(bottom=0)
            else:
                axis.set_yscale("log")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def main() -> None:
    seeds = parser_of(__doc__, (0, 1)).parse_args().seeds
    flower_python()
    report_results("simulation", seeds, measure, targets_of, draw)


if __name__ == "__main__":
    main()
