"""Runs the jobs of a cycle and of the bootstrap, one at a time, and stores the files that they have made."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import BaseModel

from cloud_server import starter
from cloud_server.config import CloudConfig
from cloud_server.cycles.rebase import Lineage
from cloud_server.entities import Cycle, EncodedGap, GapManifest, Model, ModelKind
from cloud_server.jobs.presumed import PresumedResult, PresumedSpec
from diredi.data.dataset import load as load_dataset
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
    FirstModel,
    GapFile,
    RedistilResult,
    RedistilSpec,
    SiteGap,
    TransportSpec,
)
from diredi.knowledge.lambda_search import Score
from diredi.knowledge.recipe import CycleRecipe
from diredi.progress import Progress
from diredi.store.blobs import Blob, BlobStore
from diredi.store.files import no_room_at

JOBS: Final = "diredi.knowledge.jobs"
_log: Final = structlog.get_logger()
PRESUMED_JOB: Final = "cloud_server.jobs.presumed"
TRANSPORT_JOB: Final = "diredi.knowledge.jobs.transport"


class JobRunner:
    """The cloud's jobs, and the way of their results into the blob store."""

    def __init__(self, config: CloudConfig, blobs: BlobStore, executor: Executor, jobs: str = JOBS) -> None:
        """Create the runner.

        Args:
            config: The cloud's configuration.
            blobs: Where the files that jobs make are stored.
            executor: Runs the jobs.
            jobs: Name of the package whose modules are the jobs.
        """
        self._config = config
        self._blobs = blobs
        self._executor = executor
        self._package = jobs
        self._root = config.state_dir.resolve() / "jobs"
        self._presumed: Path | None = None
        self._one_at_a_time = asyncio.Lock()

    async def bootstrap(self, on_progress: Heard) -> BootstrapResult:
        """Make the first models: take those of the starter release, or load or train what the configuration names."""
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

    def check_pool(self) -> None:
        """Read the public pool, if there is one: what is wrong with it is told at the start and not late in a cycle.

        Raises:
            DatasetError: The pool cannot be used.
        """
        if self._config.pool:
            pool = load_dataset(self._config.pool, ("train",), labelled=False)
            _log.info("pool_read", images=len(pool.train), notes=list(pool.notes))

    def _unpack_starter(self) -> tuple[Path, Path]:
        """Write both models of the starter release as the fp32 files that the registry's copies are made from."""
        folder = job_folder(self._root, "starter")
        with no_room_at(folder):
            files = starter.unpack(folder)
        return files.tutor, files.student

    async def transport(self, cycle: Cycle, name: str, lineage: Lineage, on_progress: Heard) -> SiteGap:
        """Make what a scope has learned into a gap for a newer release.

        Args:
            cycle: A rebase.
            name: What the job is called within the cycle.
            lineage: The three models.
            on_progress: Called with the job's progress.

        Raises:
            InvalidInput: The models do not fit together.
            DirediError: The job failed.
        """
        spec = TransportSpec(
            learned=self._path(lineage.learned.weights),
            origin=self._path(lineage.origin.weights),
            target=self._path(lineage.target.weights),
        )
        gap = await self._run(TRANSPORT_JOB, spec, GapFile, on_progress, cycle.id, name)
        return SiteGap(path=gap.path, codec=gap.codec, site=cycle.scope, images=1)

    async def apply_gaps(
        self, cycle: Cycle, receiver: Model, on_progress: Heard, carried: SiteGap | None = None
    ) -> ApplyResult:
        """Merge the gaps of a cycle's sites and add them to a model.

        Args:
            cycle: A cycle with all its gaps.
            receiver: The tutor, or a teacher of its architecture.
            on_progress: Called with the job's progress.
            carried: The one gap of a rebase, whose sites have sent none.

        Raises:
            CorruptData: The job made no progress, or left something that is no result.
            DirediError: The job failed.
        """
        spec = ApplySpec(
            tutor=self._path(receiver.weights),
            gaps=(carried,)
            if carried
            else tuple(self._site_gap(site, manifest, manifest.tutor_gap) for site, manifest in cycle.gaps),
            scores=tuple(
                tuple(Score(lam=score.lam, metrics=score.metrics) for score in manifest.scores)
                for _, manifest in cycle.gaps
            ),
            presumed=await self.locate_presumed(on_progress),
            recipe=CycleRecipe.of(cycle.recipe),
        )
        return await self._run("apply_gap", spec, ApplyResult, on_progress, cycle.id, "apply")

    async def redistil(
        self, cycle: Cycle, tutor: Model, student: Model, on_progress: Heard, carried: SiteGap | None = None
    ) -> RedistilResult:
        """Make a new student, from the sites' student gaps or from the updated tutor, as the recipe says.

        Args:
            cycle: A cycle with its updated tutor.
            tutor: The updated tutor.
            student: The student that the cycle starts from.
            on_progress: Called with the job's progress.
            carried: The one student gap of a rebase, whose sites have sent none.

        Raises:
            CorruptData: The job made no progress, or left something that is no result.
            DirediError: The job failed.
        """
        spec = RedistilSpec(
            tutor=self._path(tutor.weights),
            student=self._path(student.weights),
            student_gaps=(carried,)
            if carried
            else tuple(
                self._site_gap(site, manifest, manifest.student_gap)
                for site, manifest in cycle.gaps
                if manifest.student_gap is not None
            ),
            styles=tuple(SiteStyle.of(manifest.style) for _, manifest in cycle.gaps if manifest.style is not None),
            presumed=await self.locate_presumed(on_progress),
            pool=Path(self._config.pool) if self._config.pool else None,
            recipe=CycleRecipe.of(cycle.recipe),
        )
        return await self._run("redistil", spec, RedistilResult, on_progress, cycle.id, "redistil")

    async def locate_presumed(self, on_progress: Heard) -> Path:
        """Return the path of the presumed data.yaml. A job generates scenes when they are asked for the first time.

        Raises:
            InvalidInput: The configured data set is not usable.
        """
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
            # An old result may name images that were deleted since. If they are there, the job takes no time.
            self.discard("presumed")
            result = await self._run(PRESUMED_JOB, spec, PresumedResult, on_progress, "presumed")
            self._presumed = result.data
        return self._presumed

    async def store_file(self, path: Path, digest: str) -> Blob:
        """Put a file that a job has made into the blob store.

        Raises:
            CorruptData: The file has another digest than its job said.
        """
        blob = await asyncio.to_thread(self._blobs.add_file, path)
        if blob.digest != digest:
            raise CorruptData(f"{path} has digest {blob.digest}, its job said {digest}: start the cycle again")
        return blob

    async def store_model(
        self,
        kind: ModelKind,
        result: ApplyResult | FirstModel | RedistilResult,
        cycle_id: str,
        parent_id: str,
        **fields: Any,  # noqa: ANN401
    ) -> Model:
        """Put the files of a model into the blob store and return the model, which is not registered yet.

        Args:
            kind: Teacher, tutor or student.
            result: What the job has made.
            cycle_id: The cycle that the model comes from; empty for the first models.
            parent_id: The model that it was made from; empty where there is none.
            **fields: Further fields of the model.

        Raises:
            CorruptData: A file has another digest than its job said.
        """
        spec = await asyncio.to_thread(DetectorSpec.of_file, result.weights)
        weights = await self.store_file(result.weights, result.digest)
        file: File | None = getattr(result, "onnx", None)
        onnx = None if file is None else await self.store_file(file.path, file.digest)
        return Model(
            id=weights.digest, kind=kind, architecture=spec.architecture, image_size=spec.image_size,
            labels=spec.labels, weights=weights, onnx=onnx, cycle_id=cycle_id, parent_id=parent_id, **fields,
        )  # fmt: skip

    def discard(self, *names: str) -> None:
        """Delete the folder of a job whose result is stored elsewhere."""
        shutil.rmtree(job_folder(self._root, *names), ignore_errors=True)

    async def _run(self, job: str, spec: BaseModel, result: type[Result], on_progress: Heard, *names: str) -> Result:
        """Return a job's result. End a job that makes no progress; start one that died again, `job_tries` times.

        `job` is the name of a module in the package of jobs, or the whole name of a module.
        """
        deadline_s = self._config.progress_deadline_s
        module = job if "." in job else f"{self._package}.{job}"
        for left in reversed(range(self._config.job_tries)):
            try:
                async with self._one_at_a_time, asyncio.timeout(deadline_s) as timeout:

                    async def extend_deadline(progress: Progress, timeout: asyncio.Timeout = timeout) -> None:
                        timeout.reschedule(asyncio.get_running_loop().time() + deadline_s)
                        await on_progress(progress)

                    with no_room_at(self._root):
                        return await self._executor.run(
                            module, spec, result, job_folder(self._root, *names), extend_deadline
                        )
            except TimeoutError:
                raise CorruptData(f"job {names[-1]} made no progress for {deadline_s:g} s and was ended") from None
            except DirediError as error:
                if type(error) is not DirediError or not left:  # other kinds say what is wrong: trying again is no use
                    raise
        raise AssertionError

    def _site_gap(self, site: str, manifest: GapManifest, gap: EncodedGap) -> SiteGap:
        return SiteGap(path=self._path(gap.blob), codec=gap.codec, site=site, images=manifest.train_images)

    def _path(self, blob: Blob) -> Path:
        return self._blobs.path(blob.digest).resolve()
