from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from rectangles import recipe, rectangles

from diredi.distillation.trainer import train
from diredi.errors import DirediError
from diredi.progress import Progress
from diredi.store.weights import WeightMap

pytestmark = pytest.mark.slow

EPOCHS = 3
LOSSES = {"class_scores": 1.0, "boxes": 1.0, "fgd": 1.0}
TRAINING = """
import sys
from pathlib import Path
from rectangles import LABELS, recipe, rectangles
from diredi.detectors import registry
from diredi.distillation.trainer import train

folder = Path(sys.argv[1])
student, teacher = (registry.create("yolo11-w0.0625", 64, LABELS, seed, device="cpu") for seed in (0, 1))
given = recipe(epochs=3, losses={"class_scores": 1.0, "boxes": 1.0, "fgd": 1.0})
train(student, rectangles(folder / "images", 16, (0, 1, 2), 0), given, teacher=teacher, checkpoint=folder / "kept",
      on_progress=lambda now: print(now.message, flush=True))
"""


class Stopped(Exception):
    """What a test does to a training that it wants to end in the middle."""


@pytest.fixture
def images(tmp_path):
    return rectangles(tmp_path / "images", 16, (0, 1, 2), 0)


def learner(make, images, folder):
    def learned(until: int | None = None, kept: str | None = "kept", teacher_seed: int = 1, **changes):
        said: list[str] = []

        def note(now: Progress) -> None:
            said.append(now.message)
            if until is not None and now.message.startswith(f"step {until} of"):
                raise Stopped

        student = make(seed=0)
        given = recipe(**{"epochs": EPOCHS, "losses": LOSSES, **changes})
        checkpoint = None if kept is None else folder / kept
        report = None
        try:
            teacher = make(seed=teacher_seed)
            report = train(student, images, given, teacher=teacher, checkpoint=checkpoint, on_progress=note)
        except Stopped:
            assert until is not None
        return student.weights(), report, said

    return learned


@pytest.fixture
def learn(make, images, tmp_path):
    """Trains a new student with two steps an epoch; `until` is the step in which it is stopped."""
    return learner(make, images, tmp_path)


@pytest.fixture(scope="module")
def straight(make, tmp_path_factory):
    """What a training in one go ends with, by optimizer."""
    folder = tmp_path_factory.mktemp("straight")
    learned = learner(make, rectangles(folder / "images", 16, (0, 1, 2), 0), folder)
    return functools.cache(lambda optimizer="adamw": learned(kept=None, optimizer=optimizer)[:2])


def equal(a: WeightMap, b: WeightMap) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_a_training_that_the_kernel_killed_ends_as_if_it_had_not_been(learn, straight, tmp_path):
    whole, _ = straight()
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 5 of 6"):  # in the third epoch
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    after, report, said = learn()
    assert said[0].startswith("step 4 of 6"), "progress starts where it was"
    assert equal(whole, after)
    assert len(report.losses) == EPOCHS


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_stop_in_the_middle_of_an_epoch_costs_that_epoch_and_no_more(optimizer, learn, straight):
    whole, in_one_go = straight(optimizer)
    learn(until=5, optimizer=optimizer)
    after, report, said = learn(optimizer=optimizer)
    assert [line.split()[1] for line in said] == ["4", "5", "6"]
    assert equal(whole, after)
    assert report.losses == in_one_go.losses


def test_a_training_that_is_done_is_not_done_again(learn):
    first, _, _ = learn()
    again, report, said = learn()
    assert said == [said[0]]
    assert said[0].startswith("step 6 of 6")
    assert equal(first, again)
    assert report.steps == 6


@pytest.mark.parametrize("other", [{"seed": 1}, {"learning_rate": 1e-3}, {"epochs": 2}, {"teacher_seed": 2}])
def test_what_another_training_has_left_is_not_gone_on_from(other, learn):
    learn(until=5)
    clean, _, _ = learn(kept=None, **other)
    found, _, said = learn(**other)
    assert said[0].startswith("step 1 of")
    assert equal(clean, found)


def test_other_labels_make_another_training(learn, images):
    learn(until=5)
    images[0].boxes[0, 3] *= 0.5
    _, _, said = learn()
    assert said[0].startswith("step 1 of")


@pytest.mark.parametrize("damage", ["cut arrays", "one bit", "no arrays", "cut progress", "foreign progress", "empty"])
def test_a_damaged_checkpoint_is_as_good_as_none(damage, learn, straight, tmp_path):
    whole, _ = straight()
    learn(until=5)
    (arrays,) = (tmp_path / "kept").glob("*.safetensors")
    progress = tmp_path / "kept" / "progress.json"
    content = bytearray(arrays.read_bytes())
    if damage == "cut arrays":
        arrays.write_bytes(content[:-8])
    elif damage == "one bit":
        content[-1] ^= 1
        arrays.write_bytes(content)
    elif damage == "no arrays":
        arrays.unlink()
    elif damage == "cut progress":
        progress.write_bytes(progress.read_bytes()[:-20])
    elif damage == "foreign progress":
        progress.write_text(json.dumps(["not", "ours"]))
    else:
        progress.write_bytes(b"")
    after, _, said = learn()
    assert said[0].startswith("step 1 of")
    assert equal(whole, after)


def test_a_write_that_was_cut_short_leaves_the_epoch_before_it(learn, straight, tmp_path):
    whole, _ = straight()
    learn(until=5)
    (tmp_path / "kept" / "new.safetensors.part").write_bytes(b"half")
    (tmp_path / "kept" / "0123456789abcdef.safetensors").write_bytes(b"half")
    (tmp_path / "kept" / "progress.json.part").write_text("{")
    after, _, said = learn()
    assert said[0].startswith("step 4 of")
    assert equal(whole, after)


def test_nothing_is_pickled_and_nothing_of_older_epochs_stays(learn, tmp_path):
    learn(until=5)
    assert sorted(path.suffix for path in (tmp_path / "kept").iterdir()) == [".json", ".safetensors"]
    learn()
    (last,) = (tmp_path / "kept").glob("*.safetensors")
    kinds = {name.partition("/")[0] for name in WeightMap.load(last)}
    assert kinds == {"student", "losses"}, "a training that is done needs no optimizer"


def test_no_process_and_no_thread_outlives_a_training_however_it_ends(learn):
    threads = {thread.ident for thread in threading.enumerate()}
    learn()
    learn(until=3, kept="stopped")
    with pytest.raises(DirediError):
        learn(kept=None, learning_rate=1e30, warmup=0.0, optimizer="sgd", epochs=20)
    assert {thread.ident for thread in threading.enumerate()} == threads
    assert multiprocessing.active_children() == []
    assert torch.get_num_threads() == 1
