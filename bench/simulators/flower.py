"""Flower's simulation, in an environment of its own: nothing of DiReDi is imported.

python -c "import flower; flower.main('FOLDER')"    in this folder, for Ray's actors have to import the client too
"""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from networks import network

client = ClientApp()


@cache
def task(folder: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Specification and data, read once in each process."""
    with np.load(Path(folder) / "data.npz") as data:
        tensors = {name: torch.from_numpy(data[name]) for name in data}
    return json.loads((Path(folder) / "spec.json").read_text()), tensors


@client.train()
def train(message: Message, context: Context) -> Message:
    """A client's epochs, as ours: plain gradient descent over its images in random order."""
    torch.set_num_threads(1)
    spec, data = task(str(message.content["config"]["folder"]))
    own = torch.nonzero(data["client"] == int(context.node_config["partition-id"])).flatten()
    model = network(spec["network"], spec["seed"])
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), spec["learning_rate"])
    for _ in range(spec["epochs"]):
        for batch in torch.split(own[torch.randperm(len(own))], spec["batch"]):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(data["images"][batch]), data["labels"][batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(own)})}
    return Message(content=RecordDict(content), reply_to=message)


def main(folder: str) -> None:
    spec, data = task(folder)
    model, server = network(spec["network"], spec["seed"]), ServerApp()
    ended: list[float] = []
    accuracies: list[float] = []

    def judged(number: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            right = model(data["test_images"]).argmax(1) == data["test_labels"]
        accuracies.append(float(right.float().mean()))
        if number > 0:
            ended.append(time.time())
        return MetricRecord({"accuracy": accuracies[-1]})

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=spec["clients"], min_available_nodes=spec["clients"])
        strategy.start(
            grid,
            ArrayRecord(model.state_dict()),
            num_rounds=spec["rounds"],
            train_config=ConfigRecord({"folder": folder}),
            evaluate_fn=judged,
        )

    resources = {"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": spec["cpus"]}}
    run_simulation(server, client, spec["clients"], backend_config=resources)
    (Path(folder) / "found.json").write_text(json.dumps({"ended": ended, "accuracy": accuracies[-1]}))
