"""`python bench/simulators/ours.py FOLDER`: DiReDi's simulation. Workers import this, so its top has little."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from networks import network


def main(folder: Path) -> None:
    import numpy as np

    from diredi.data.classification.base import ClassificationSet, LabelledImages
    from diredi.decentralized.simulation.recipe import EngineRecipe, SimulationRecipe
    from diredi.decentralized.simulation.simulate import simulate
    from diredi.decentralized.strategies import StrategyRecipe

    spec, data = json.loads((folder / "spec.json").read_text()), np.load(folder / "data.npz")
    learning = StrategyRecipe(learning_rate=spec["learning_rate"], epochs=spec["epochs"], batch=spec["batch"])
    chunk = min(50, -(-spec["clients"] // spec["cpus"]))
    recipe = SimulationRecipe(
        strategy=learning, rounds=spec["rounds"], seed=spec["seed"], chunk=chunk, training="stacked"
    )
    splits = LabelledImages(data["images"], data["labels"]), LabelledImages(data["test_images"], data["test_labels"])
    digits = ClassificationSet("digits", tuple("0123456789"), *splits)
    shards = [np.flatnonzero(data["client"] == client) for client in range(spec["clients"])]
    ended: list[float] = []
    outcome = simulate(
        recipe,
        network(spec["network"], spec["seed"]),
        digits,
        shards,
        folder / "run",
        EngineRecipe(workers=spec["cpus"]),
        on_round=lambda metrics: ended.append(time.time()),
    )
    found = {"ended": ended, "accuracy": outcome.history[-1].accuracy}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
