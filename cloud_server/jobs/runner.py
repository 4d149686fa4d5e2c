"""Runs the jobs of a cycle and of the bootstrap, one at a time, and puts what they made into the blob store."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from cloud_server import starter
from cloud_server.config import CloudConfig
from cloud_server.entities import Cycle, EncodedGap, GapManifest, Model, ModelKind
from cloud_server.jobs.presumed import PresumedResult, PresumedSpec
from diredi.data.sources import SCENES, resolve
from diredi.data.style import SiteStyle
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, DirediError
from diredi.jobs import Executor, Heard, Result, job_folder
from diredi.knowledge.jobs.specs import (
    ApplyResult,
    ApplySpec,
    BootstrapResult,
    BootstrapSpec,
    File,
    RedistilResult,
    RedistilSpec,
    SiteGap,
)
from diredi.knowledge.lambda_search import Score
from diredi.knowledge.recipe import CycleRecipe
from diredi.progress import Progress
from diredi.store.blobs import Blob, BlobStore
from diredi.store.files import no_room_at

JOBS: Final = "diredi.knowledge.jobs"
PRESUMED_JOB: Final = "cloud_server.jobs.presumed"


class JobRunner:
    """`jobs` is the package that the cycle's jobs are modules of."""

    def __init__(self, config: CloudConfig, blobs: BlobStore, executor: Executor, jobs: str = JOBS) -> None:
        self._config = config
        self._blobs = blobs
        self._executor = executor
        self._package = jobs
        self._root = config.state_dir.resolve() / "jobs"
        self._presumed: Path | None = None
        self._one_at_a_time = asyncio.Lock()

    async def bootstrap(self, on_progress: Heard) -> BootstrapResult:
        """The first models: those of the starter release, or as the configuration names or trains them."""
        config = self._config
        tutor, student = config.tutor, config.student
        if config.begins_with_starter:
            tutor, student = map(str, await asyncio.to_thread(self._unpack_starter))
        spec = BootstrapSpec(
            presumed=await self.locate_presumed(on_progress),
            teacher=config.teacher or None,
            tutor=tutor or None,
            student=student or None,
            image_size=config.image_size,
            recipe=config.bootstrap_recipe,
        )
        return await self._run("bootstrap", spec, BootstrapResult, on_progress, "bootstrap")

    def _unpack_starter(self) -> tuple[Path, Path]:
        """Write both models of the starter release as the fp32 files that the registry's copies are made from."""
        folder = job_folder(self._root, "starter")
        with no_room_at(folder):
            files = starter.unpack(folder)
        return files.tutor, files.student

    async def apply_gaps(self, cycle: Cycle, receiver: Model, on_progress: Heard) -> ApplyResult:
        """The gaps of the cycle's sites, merged and added to the tutor."""
        spec = ApplySpec(
            tutor=self._path(receiver.weights),
            gaps=tuple(self._site_gap(site, sent, sent.tutor_gap) for site, sent in cycle.gaps),
            scores=tuple(tuple(Score(lam=s.lam, figures=s.figures) for s in sent.scores) for _, sent in cycle.gaps),
            presumed=await self.locate_presumed(on_progress),
            recipe=CycleRecipe.of(cycle.recipe),
        )
        return await self._run("apply_gap", spec, ApplyResult, on_progress, cycle.id, "apply")

    async def redistil(self, cycle: Cycle, tutor: Model, student: Model, on_progress: Heard) -> RedistilResult:
        """A new student from the updated tutor."""
        students = [(site, sent, sent.student_gap) for site, sent in cycle.gaps if sent.student_gap is not None]
        spec = RedistilSpec(
            tutor=self._path(tutor.weights),
            student=self._path(student.weights),
            student_gaps=tuple(self._site_gap(*one) for one in students),
            styles=tuple(SiteStyle.of(sent.style) for _, sent in cycle.gaps if sent.style is not None),
            presumed=await self.locate_presumed(on_progress),
            pool=Path(self._config.pool) if self._config.pool else None,
            recipe=CycleRecipe.of(cycle.recipe),
        )
        return await self._run("redistil", spec, RedistilResult, on_progress, cycle.id, "redistil")

    async def locate_presumed(self, on_progress: Heard) -> Path:
        """Path of the presumed data.yaml; scenes are generated, by a job, the first time that they are asked for."""
        config = self._config
        if not config.presumed.startswith(SCENES):
            return (await asyncio.to_thread(resolve, config.presumed, config.state_dir)).resolve()
        if self._presumed is None:
            spec = PresumedSpec(
                presumed=config.presumed,
                cache=config.state_dir.resolve() / "data",
                seed=config.seed,
                train=config.presumed_train,
                val=config.presumed_val,
            )
            self.discard("presumed")  # what it left may have been tidied up; making it again takes no time if not
            made = await self._run(PRESUMED_JOB, spec, PresumedResult, on_progress, "presumed")
            self._presumed = made.data
        return self._presumed

    async def store_file(self, path: Path, digest: str) -> Blob:
        """Puts a file that a job made into the blob store. Raises CorruptData when it is another than the job said."""
        blob = await asyncio.to_thread(self._blobs.add_file, path)
        if blob.digest != digest:
            raise CorruptData(f"{path} has digest {blob.digest}, its job said {digest}: start the cycle again")
        return blob

    async def store_model(self, kind: ModelKind, made: Any, cycle_id: str, parent_id: str, **fields: Any) -> Model:  # noqa: ANN401
        """A model for the registry, its bytes in the blob store. `made` is a part of a job's result."""
        spec = await asyncio.to_thread(DetectorSpec.of_file, made.weights)
        weights = await self.store_file(made.weights, made.digest)
        file: File | None = getattr(made, "onnx", None)
        onnx = None if file is None else await self.store_file(file.path, file.digest)
        return Model(
            id=weights.digest, kind=kind, architecture=spec.architecture, image_size=spec.image_size,
            labels=spec.labels, weights=weights, onnx=onnx, cycle_id=cycle_id, parent_id=parent_id, **fields,
        )  # fmt: skip

    def discard(self, *names: str) -> None:
        """Removes the folder of a job whose result is safe elsewhere."""
        shutil.rmtree(job_folder(self._root, *names), ignore_errors=True)

    async def _run(self, job: str, spec: BaseModel, result: type[Result], on_progress: Heard, *names: str) -> Result:
        """The job's result. One that says nothing for `progress_deadline_s` is ended, one that died is started again.

        `job` is a module of the package of jobs, or one with its whole name.
        """
        deadline_s = self._config.progress_deadline_s
        module = job if "." in job else f"{self._package}.{job}"
        for left in reversed(range(self._config.job_tries)):
            try:
                async with self._one_at_a_time, asyncio.timeout(deadline_s) as timeout:

                    async def heard(progress: Progress, timeout: asyncio.Timeout = timeout) -> None:
                        timeout.reschedule(asyncio.get_running_loop().time() + deadline_s)
                        await on_progress(progress)

                    with no_room_at(self._root):
                        return await self._executor.run(module, spec, result, job_folder(self._root, *names), heard)
            except TimeoutError:
                raise CorruptData(f"job {names[-1]} made no progress for {deadline_s:g} s and was ended") from None
            except DirediError as error:
                if type(error) is not DirediError or not left:  # a named error is an answer, not an accident
                    raise
        raise AssertionError

    def _site_gap(self, site: str, sent: GapManifest, gap: EncodedGap) -> SiteGap:
        """A site's gap as the jobs take it."""
        return SiteGap(path=self._path(gap.blob), codec=gap.codec, site=site, images=sent.train_images)

    def _path(self, blob: Blob) -> Path:
        return self._blobs.path(blob.digest).resolve()
