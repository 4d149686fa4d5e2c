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

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
import psutil
from frame import conclude, parser_of
from numpy.typing import NDArray
from report import COMMIT, HERE, Json, kept, target
from world import QUICK, ROOT, emptied

from diredi.data.classification import load

sys.path.append(str(ROOT))
from deploy.setup import Pip, constraints, torch_requirement

SIDES = HERE / "simulating"
FLOWER = ROOT / "runs" / "flower-venv"
NETWORKS = ("mlp",) if QUICK else ("mlp", "cnn")
CLIENTS = (10, 100) if QUICK else (10, 100, 1000)
LEARNING = {"rounds": 3 if QUICK else 6, "learning_rate": 0.1, "epochs": 2, "batch": 8}
PATIENCE_S = 900
"""With one program. Flower's waits for ever when its Ray has not started within 30 s, as where cores are busy."""
Numbers = NDArray[np.float64]


def flower_python() -> str:
    """Of an environment with the versions that are pinned here; they never meet ours."""
    pins, stamp = SIDES / "flower-requirements.txt", FLOWER / "made-from.txt"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        print(f"making {FLOWER}: minutes", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FLOWER)], check=True)
        pip = Pip(FLOWER)
        pip.run("install", "--no-deps", *torch_requirement(pip, constraints()["torch"]), "-r", str(pins))
        stamp.write_text(pins.read_text())
    return str(FLOWER / "bin" / "python")


def commands() -> dict[str, list[str]]:
    """Of each side, without the folder."""
    program = "import sys, flower; flower.main(sys.argv[1])"
    return {"DiReDi": [sys.executable, str(SIDES / "ours.py")], "Flower": [flower_python(), "-c", program]}


def ran(command: list[str], spec: Json, folder: Path) -> Json:
    """The columns of one program."""
    emptied(folder)
    (folder / "spec.json").write_text(json.dumps(spec))
    write_data(spec, folder / "data.npz")
    settings = {"PYTHONPATH": os.pathsep.join([str(SIDES), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    settings |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_HOME": str(folder / "flower")}
    with one_at_a_time(), (folder / "log.txt").open("w") as log:
        began = time.time()
        process = subprocess.Popen([*command, str(folder)], stdout=log, stderr=log, env={**os.environ, **settings})
        mib, spent = watched(process)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: see {folder / 'log.txt'}")
    found = json.loads((folder / "found.json").read_text())
    rounds = np.diff([began, *found["ended"]])
    return {
        "first round s": rounds[0],
        "round s": median(rounds[1:]),
        "CPU s": spent,
        "MiB": mib,
        "accuracy": 100 * found["accuracy"],
    }


def write_data(spec: Json, path: Path) -> None:
    digits = load("digits")
    client = np.random.default_rng([spec["seed"]]).permutation(len(digits.train)) % spec["clients"]
    test = {"test_images": digits.test.images, "test_labels": digits.test.labels}
    np.savez(path, images=digits.train.images, labels=digits.train.labels, client=client, **test)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Seeds are worked on side by side, which seconds of the clock would not bear."""
    with (ROOT / "runs" / "simulation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def watched(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Waits for the process: the most MiB that it and all its descendants had at once, and their processor seconds, as
    seen five times a second. One that hangs is ended.
    """
    ended, peak, spent = threading.Event(), 0.0, dict[int, float]()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    began = time.monotonic()
    while not ended.wait(0.2):
        looks = [(one, look(one)) for one in family(process.pid)]
        peak = max(peak, sum(mib for _, (mib, _) in looks))
        spent |= {one.pid: max(seconds, spent.get(one.pid, 0.0)) for one, (_, seconds) in looks}
        if time.monotonic() - began > PATIENCE_S:
            for one, _ in looks:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
    return peak, sum(spent.values())


def family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def look(process: psutil.Process) -> tuple[float, float]:
    """MiB of a process, with its share of what it shares, and its processor seconds; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        times = process.cpu_times()
    except (OSError, psutil.NoSuchProcess):
        return 0.0, 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024, times.user + times.system


def named(side: str, clients: int) -> str:
    return f"{side}, {clients} clients"


def measured(seed: int, folder: Path) -> Json:
    sides, cpus = commands(), os.cpu_count() or 1
    tables: dict[str, dict[str, Json]] = {}
    for network in NETWORKS:
        for clients in CLIENTS:
            for side, command in sides.items():
                spec = {"network": network, "clients": clients, "seed": seed, "cpus": cpus, **LEARNING}
                place = folder / f"seed-{seed}" / f"{network}-{clients}-{side}"
                made = kept(place.with_suffix(".json"), spec, lambda c=command, s=spec, p=place: ran(c, s, p))
                tables.setdefault(network, {})[named(side, clients)] = made
    return {"commits": [COMMIT], "tables": tables}


def seeds_of(rows: list[Json], network: str, side: str, clients: int, column: str) -> Numbers:
    (row,) = (row for row in rows if row["table"] == network and row["form"] == named(side, clients))
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
    return max(0.0, *apart)


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
            axis.set(xscale="log", yscale="log", xlabel="clients", ylabel=column, title=network)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def main() -> None:
    seeds = parser_of(__doc__, (0, 1)).parse_args().seeds
    flower_python()
    conclude("simulation", seeds, measured, targets_of, draw)


if __name__ == "__main__":
    main()
