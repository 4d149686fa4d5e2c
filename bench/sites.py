"""What sites need: `python bench/sites.py [--parts PART ...] [--seeds 0 1 2]`.

    faulty-labels   what an audit finds of faults in labels (`faulty_labels.py`): ten minutes
    few-labels      what 10, 20 or 50 labelled images of a new class teach (`few_labels.py`): half an hour a seed
    no-labels       what a student learns of a place from an oracle (`no_labels.py`): an hour and a half a seed
    scopes          one student for all cameras, for a cluster, for each; overlays (`scopes.py`): minutes a seed
    peers           what detectors gain from each other's boxes (`box_peers.py`): two hours a seed

All parts are measured, or those that are named; a run of all parts writes the results of the project. What is finished
is kept in `runs/sites`: delete it after a change of the code. `QUICK=1` takes few images and trains for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import box_peers
import faulty_labels
import few_labels
import no_labels
import scopes
from harness import SEEDS, folder_of, measure_concurrently, parser_of, write_results
from report import COMMIT, Json, draw, rows_of

PARTS: Final[Mapping[str, Any]] = {
    "faulty-labels": faulty_labels,
    "few-labels": few_labels,
    "no-labels": no_labels,
    "scopes": scopes,
    "peers": box_peers,
}
"""Modules: `tables` measures, `targets_of` judges, and `shown` and `COLUMNS` say what a picture has."""


def measure(seed: int, folder: Path, parts: Sequence[str]) -> dict[str, Json]:
    """The tables of some parts, for one seed."""
    found: dict[str, Json] = {}
    for part in parts:
        found |= PARTS[part].tables(seed, folder / part)
    return found


def pictures(rows: list[Json], title: str, path: Path, parts: Sequence[str]) -> None:
    """A picture for each part; that of the first has the name that all benchmarks give theirs."""
    for part in parts:
        file = path if part == next(iter(PARTS)) else path.with_stem(f"{path.stem}-{part}")
        module = PARTS[part]
        draw(rows, {table: table for table in module.shown(rows)}, module.COLUMNS, title, file)


if __name__ == "__main__":
    parser = parser_of(__doc__, quick_seeds=(0,))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    options = parser.parse_args()
    made = measure_concurrently(partial(measure, parts=options.parts), options.seeds, folder_of("sites"))
    rows = rows_of(made)
    targets = [one for part in options.parts for one in PARTS[part].targets_of(rows)]
    whole = options.seeds == SEEDS and options.parts == list(PARTS)
    show = partial(pictures, parts=options.parts)
    write_results("sites", options.seeds, rows, targets, [COMMIT], show, whole=whole)
