"""Chooses what runs the network: the fastest runtime on this board that finds what ONNX Runtime finds.

Every model begins with ONNX Runtime. Once its cameras have given some frames, the others that are installed are
measured on these, each in a process of its own, and the fastest takes over between two frames. The choice is remembered
by the file, so that a restart measures nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field

from diredi.detectors.predictor import Image
from diredi.detectors.runtimes import REFERENCE, installed_runtimes, onnx_runtime, split_name
from diredi.errors import CorruptData, DirediError
from diredi.store.files import atomic_write, read_state
from edge_node.active_model import ActiveModel, LoadedModel, ModelFile, RunningModel, warm_up
from edge_node.inference import Broadcast
from edge_node.runtime_trial import Measurement
from edge_node.update_states import Digest

AUTO: Final = "auto"
FRAMES: Final = 8
"""How many frames a measurement needs."""
LEAST_SPEEDUP: Final = 1.05
"""A runtime that is less than this much faster is not worth a change."""
MAX_UNCLEAN_ENDS: Final = 3
"""A runtime with which the node has ended so often without being asked to is left alone until the next update."""
PROBATION_S: Final = 600.0
"""A runtime that has run for so long does not count as the reason if the node ends later."""


class Choice(BaseModel):
    """What runs a file, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Digest
    """Of the model file."""
    asked: str
    """The setting `runtime`."""
    threads: int
    versions: dict[str, str]
    """Of the runtimes that were installed."""
    runtime: str
    why: str
    unclean_ends: int = Field(default=0, ge=0)
    """How often in a row the node has been started with this runtime and has not ended cleanly."""


class Load(Protocol):
    """Load a model from its bytes."""

    def __call__(self, model: bytes, *, runtime: str) -> LoadedModel:
        """Load it with a runtime."""
        ...


FindRuntimes = Callable[[str], Awaitable[list[str]]]
"""Returns the runtimes that a package has here; may raise InvalidInput."""
Measure = Callable[[str, Path, Sequence[Image]], Awaitable[Measurement]]


class RuntimeChooser:
    """Keep the model that detects on the fastest runtime."""

    def __init__(
        self,
        record: Path,
        active: ActiveModel,
        *,
        asked: str,
        threads: int,
        load: Load,
        find_runtimes: FindRuntimes,
        measure: Measure,
    ) -> None:
        """Make it.

        Args:
            record: The file that remembers the choice.
            active: The model that detects.
            asked: "auto", or the one runtime that may run the model beside ONNX Runtime.
            threads: How many threads a runtime uses; a choice holds for this number.
            load: Loads a model.
            find_runtimes: Finds the runtimes of a package.
            measure: Measures one on a file and some frames.
        """
        self._record = record
        self._active = active
        self._asked = asked
        self._threads = threads
        self._load = load
        self._find_runtimes = find_runtimes
        self._measure = measure
        self._choice: Choice | None = None
        self._on = False
        """Whether the runtime of the choice has taken over."""
        self._on_since = 0.0
        self._log = structlog.get_logger()

    @property
    def why(self) -> str:
        """Why this runtime runs, in a sentence; empty before the choice."""
        return self._choice.why if self._choice else ""

    def start_from_disk(self) -> None:
        """Let the remembered runtime take over before the first frame, unless the node has ended with it too often."""
        current, choice = self._active.current, read_state(self._record, Choice.model_validate_json)
        if choice is None or current is None or current.file is None or not self._holds(choice, current.file):
            return
        if choice.unclean_ends >= MAX_UNCLEAN_ENDS:
            self._keep_reference(
                choice,
                f"the node ended {choice.unclean_ends} times in a row with {choice.runtime}, without being told to",
            )
            return
        self._choice = choice
        if choice.runtime != REFERENCE:
            self._take_over(current, choice, None)
            self._active.accept()

    def close(self) -> None:
        """Note that the node ends as it should."""
        self._end_probation()

    async def run(self, broadcast: Broadcast) -> None:
        """Choose for each model that detects, for ever."""
        frames: list[Image] = []
        async for result in broadcast.results():
            current = self._active.current
            if current is None or current.file is None:
                continue
            choice = self._choice
            if choice is None or not self._holds(choice, current.file):
                if self._is_alone():
                    why = "no other runtime is installed" if self._asked == AUTO else "the configuration asks for it"
                    self._choose(current.file, REFERENCE, why)
                    continue
                frames.append(result.image)
                if len(frames) == FRAMES:
                    await self._decide(current.file, frames)
                    frames.clear()
            elif choice.runtime == current.runtime:
                if self._on and time.monotonic() - self._on_since > PROBATION_S:
                    self._end_probation()
            elif self._on:
                self._keep_reference(choice, f"{choice.runtime} failed on frames")
            else:
                await asyncio.to_thread(self._take_over, current, choice, result.image)

    def _is_alone(self) -> bool:
        """Return whether there is nothing to measure."""
        if self._asked != AUTO:
            return self._asked == REFERENCE
        return set(installed_runtimes()) == {REFERENCE} and not onnx_runtime.devices()

    async def _decide(self, file: ModelFile, frames: Sequence[Image]) -> None:
        """Measure the runtimes and choose one."""
        measured: list[Measurement] = []
        for name in await self._candidates():
            one = await self._measure(name, file.path, frames)
            measured.append(one)
            if one.problem:
                self._log.warning("runtime_rejected", runtime=name, problem=one.problem)
            else:
                self._log.info(
                    "runtime_measured", runtime=name, ms=round(one.ms, 2), onnxruntime_ms=round(one.reference_ms, 2),
                    speedup=round(one.speedup, 3), frames=len(frames),
                )  # fmt: skip
        self._choose(file, *choose(measured, is_asked=self._asked != AUTO))

    async def _candidates(self) -> list[str]:
        """Return what is measured, the reference left out."""
        if self._asked != AUTO:
            return [self._asked]
        names: list[str] = []
        for package in installed_runtimes():
            if package != REFERENCE or onnx_runtime.devices():
                try:
                    names += await self._find_runtimes(package)
                except DirediError as error:
                    self._log.warning("runtime_rejected", runtime=package, problem=str(error))
        return [name for name in names if name != REFERENCE]

    def _choose(self, file: ModelFile, runtime: str, why: str) -> None:
        self._choice = Choice(
            digest=file.digest, asked=self._asked, threads=self._threads, versions=installed_runtimes(),
            runtime=runtime, why=why,
        )  # fmt: skip
        self._on = False
        self._save(self._choice)
        self._log.info("runtime_chosen", runtime=runtime, why=why)

    def _take_over(self, current: RunningModel, choice: Choice, frame: Image | None) -> None:
        """Let the chosen runtime run the file that runs now; where it fails, ONNX Runtime goes on."""
        assert current.file is not None
        self._save(choice.model_copy(update={"unclean_ends": choice.unclean_ends + 1}))
        try:
            model = self._load(_verified(current.file), runtime=choice.runtime)
            warm_up(model, frame)
        except DirediError as error:
            self._keep_reference(choice, f"{choice.runtime} fails in the node: {error}")
            return
        self._on = self._active.replace(current, replace(current, predictor=model, runtime=choice.runtime))
        self._on_since = time.monotonic()

    def _keep_reference(self, choice: Choice, why: str) -> None:
        self._choice, self._on = choice.model_copy(update={"runtime": REFERENCE, "why": why, "unclean_ends": 0}), False
        self._save(self._choice)
        self._log.warning("runtime_taken_back", runtime=choice.runtime, why=why)

    def _end_probation(self) -> None:
        if self._on and self._choice is not None:
            self._on_since = float("inf")
            self._save(self._choice.model_copy(update={"unclean_ends": 0}))

    def _holds(self, choice: Choice, file: ModelFile) -> bool:
        """Return whether a choice was made for this file, with what is asked and installed now."""
        made_for = (choice.digest, choice.asked, choice.threads, choice.versions)
        return made_for == (file.digest, self._asked, self._threads, installed_runtimes())

    def _save(self, choice: Choice) -> None:
        try:
            atomic_write(self._record, choice.model_dump_json())
        except DirediError as error:  # the node detects without this file
            self._log.warning("runtime_not_saved", error=str(error))


def choose(measured: Sequence[Measurement], *, is_asked: bool) -> tuple[str, str]:
    """Choose a runtime.

    Args:
        measured: What was measured beside ONNX Runtime.
        is_asked: Whether the configuration names the only one, which then need not be faster.

    Returns:
        Its name, and why.
    """
    usable = [one for one in measured if not one.problem]
    best = max(usable, key=lambda one: one.speedup, default=None)
    if best is None:
        problems = "; ".join(one.problem for one in measured)
        return REFERENCE, problems or "no other runtime can be used"
    said = f"{best.runtime} takes {best.ms:.1f} ms a frame and {REFERENCE} {best.reference_ms:.1f} ms"
    if is_asked or best.speedup >= LEAST_SPEEDUP:
        return best.runtime, said
    return REFERENCE, said


def check_runtime(name: str) -> None:
    """Check the setting `runtime`.

    Raises:
        InvalidInput: It names no runtime.
    """
    if name != AUTO:
        split_name(name)


def _verified(file: ModelFile) -> bytes:
    """Return the bytes of a file. Raises CorruptData where they have not its digest."""
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise CorruptData(f"{file.path} cannot be read ({error.strerror}): it is fetched again") from None
    if "sha256:" + hashlib.sha256(data).hexdigest() != file.digest:
        raise CorruptData(f"{file.path} does not match its digest: it is fetched again")
    return data
