"""The studies of learning without a cloud, whole: `make bench-studies`, or `python bench/studies.py NAME...`.

It is `diredi peers study --preset NAME` for each, with images from where the other benchmarks have theirs, and writes
the tables of what was found to `bench/results/NAME.md`. Cells are kept in `runs/NAME`; stopped at any point, it goes on
with those that are missing. `QUICK=1` writes to `bench/results/quick` alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from environment import QUICK, REAL, ROOT
from harness import RESULTS
from report import Json, write_markdown

from diredi.decentralized.studies import STUDIES


def run_benchmark(name: str, workers: int) -> None:
    command = [sys.executable, "-m", "diredi_cli", "peers", "study", "--preset", name, "--workers", str(workers)]
    command += ["--data", str(REAL / "classification"), "--runs", str(ROOT / "runs"), "--out", str(RESULTS)]
    subprocess.run([*command, *(["--quick"] if QUICK else [])], cwd=ROOT, check=True)
    if not QUICK:
        write_markdown(RESULTS, name, in_short(json.loads((RESULTS / f"{name}.json").read_text())))


def in_short(found: Json) -> Json:
    """Tables with hundreds of lines are in the JSON and the picture alone."""
    short = [row for row in found["rows"] if row["table"].endswith(": in short")]
    return {**found, "rows": short or found["rows"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(STUDIES), metavar="NAME", help="default: all")
    parser.add_argument("--workers", type=int, default=0, help="processes of one thread each; 0 for one a core")
    arguments = parser.parse_args()
    for name in arguments.names:
        run_benchmark(name, arguments.workers)


if __name__ == "__main__":
    main()
