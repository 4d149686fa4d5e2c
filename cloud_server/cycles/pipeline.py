"""The cloud's own steps of a cycle: one method for each state works, then records what follows and why.

Each step may run twice without harm: jobs keep their results, blobs and models are named by their digests, and each
transaction checks that the cycle is still in the state that the step began with.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from types import MappingProxyType
from typing import Final

from cloud_server import canary, gate
from cloud_server.context import CloudContext
from cloud_server.cycles import rebase, transitions
from cloud_server.entities import Cycle, ExternalValidation, Json, Model, ModelKind, Progress, ReleaseStatus, Rollout
from cloud_server.jobs.runner import JobRunner
from cloud_server.states import State
from cloud_server.store import Repository
from diredi.errors import WrongState
from diredi.evaluation.metrics import DetectionMetrics
from diredi.jobs import Heard
from diredi.labels import LabelSpace
from diredi.progress import Progress as JobProgress

_REPORT_EVERY_S: Final = 1.0


class CyclePipeline:
    """Takes a cycle from UPLOADED to CANARY, one step at a time."""

    def __init__(
        self,
        context: CloudContext,
        job_runner: JobRunner,
        *,
        max_harm: float,
        canary_devices: int,
        rollout_steps: tuple[int | str, ...] = (100,),
        external_validations: int = 0,
    ) -> None:
        """Create the pipeline.

        Args:
            context: What the services share.
            job_runner: Runs the training jobs.
            max_harm: How much mAP50 (0..1) on presumed images an update may cost.
            canary_devices: How many devices of each site run a release first.
            rollout_steps: Groups of sites (`group:NAME`) and then shares of the other devices, in percent, that get it
                one step after the other.
            external_validations: How many sites that take no part are asked about a candidate.
        """
        self._context = context
        self._job_runner = job_runner
        self._max_harm = max_harm
        self._canary_devices = canary_devices
        self._rollout_steps = rollout_steps
        self._external_validations = external_validations
        self._steps: MappingProxyType[State, Callable[[Cycle], Awaitable[Cycle]]] = MappingProxyType(
            {
                State.UPLOADED: self.apply_gaps,
                State.APPLIED: self.gate_tutor,
                State.GATED: self.redistil_student,
                State.REDISTILLED: self.release_to_canaries,
            }
        )

    async def advance(self, cycle: Cycle) -> Cycle:
        """Run the step of the cycle's state and return the cycle after it. Whatever the step raises is raised."""
        return await self._steps[cycle.state](cycle)

    async def apply_gaps(self, cycle: Cycle) -> Cycle:
        """Go from UPLOADED to APPLIED: merge the sites' gaps and add them to the tutor."""
        receiver = await self._context.read(lambda r: _find_receiver(r, cycle))
        progress = self._progress_recorder(cycle)
        carried = None
        if cycle.rebases:
            tutors, _ = await self._context.read(lambda r: rebase.find_lineages(r, cycle))
            carried = await self._job_runner.transport(cycle, "transport tutor", tutors, progress)
        result = await self._job_runner.apply_gaps(cycle, receiver, progress, carried)
        model = await self._job_runner.store_model(
            receiver.kind, result, cycle.id, receiver.id, presumed=result.after, created=self._context.now()
        )
        gaps = "gap" if len(cycle.gaps) == 1 else f"gaps of {len(cycle.gaps)} sites merged and"
        reason = f"{f'what {cycle.scope} has learned' if carried else gaps} added to the {receiver.kind}"
        return await self._record(cycle, State.APPLIED, reason, result.to_record(), model, updated_tutor_id=model.id)

    async def gate_tutor(self, cycle: Cycle) -> Cycle:
        """Go from APPLIED to GATED, or to REJECTED where the updated tutor does not pass the gate."""
        tutor = await self._context.read(lambda r: r.models.get(cycle.updated_tutor_id))
        verdict = await self._judge(cycle, tutor, cycle.metrics_of(State.APPLIED))
        state = State.GATED if verdict.passed else State.REJECTED
        return await self._record(cycle, state, f"tutor: {verdict.reason}", verdict.metrics)

    async def redistil_student(self, cycle: Cycle) -> Cycle:
        """Go from GATED to REDISTILLED: make the next student and gate it as the very ONNX file that will ship.

        A student that does not pass the gate ends the cycle as REJECTED.
        """
        tutor, student = await self._context.read(
            lambda r: (r.models.get(cycle.updated_tutor_id), r.models.get(cycle.base_student_id))
        )
        progress = self._progress_recorder(cycle)
        carried = None
        if cycle.rebases:
            _, students = await self._context.read(lambda r: rebase.find_lineages(r, cycle))
            carried = await self._job_runner.transport(cycle, "transport student", students, progress)
        result = await self._job_runner.redistil(cycle, tutor, student, progress, carried)
        model = await self._job_runner.store_model(
            ModelKind.STUDENT, result, cycle.id, student.id, presumed=result.after, created=self._context.now()
        )
        verdict = await self._judge(cycle, model, result.to_record())
        state = State.REDISTILLED if verdict.passed else State.REJECTED
        metrics = result.to_record() | verdict.metrics
        after = await self._record(
            cycle, state, f"student: {verdict.reason}", metrics, model, updated_student_id=model.id
        )
        for job in ("apply", "redistil", "transport tutor", "transport student"):
            self._job_runner.discard(cycle.id, job)
        return after

    async def release_to_canaries(self, cycle: Cycle) -> Cycle:
        """Go from REDISTILLED to CANARY, or to FAILED where another release has come first.

        The release and the state are recorded in one transaction, so there is never one without the other.
        """
        online = {caller.removeprefix("device/") for caller in self._context.open_streams}
        sites_online = {caller.removeprefix("site/") for caller in self._context.open_streams}

        def release(r: Repository, now: datetime) -> Cycle:
            stored = r.cycles.get(cycle.id)
            if stored.state is not cycle.state:
                return stored
            if conflict := transitions.explain_superseded(r, cycle):
                return r.cycles.move(cycle.id, State.FAILED, now, transitions.CLOUD, conflict)
            # Some devices of each site: what one site's cameras show says little of another's.
            canaries = [
                key
                for part in cycle.active_parts
                for key in canary.choose_canaries(
                    transitions.list_testers(r, cycle, part.site), online, self._canary_devices
                )
            ]
            student = r.models.get(cycle.updated_student_id)
            candidate = r.releases.add(
                student,
                cycle.updated_tutor_id,
                ReleaseStatus.CANARY,
                canaries,
                cycle.id,
                now,
                cycle.scope,
                self._rollout(r),
            )
            who = "the site validates it" if len(cycle.active_parts) == 1 else "each site validates it"
            reason = f"release {candidate.version} for {', '.join(canaries) or 'no device yet'}; {who}"
            others = transitions.choose_external(r, cycle, sites_online, self._external_validations)
            if others:
                reason += f"; asked, too: {len(others)} of the sites that take no part"
            return r.cycles.move(
                cycle.id, State.CANARY, now, transitions.CLOUD, reason, release_version=candidate.version,
                external={site: ExternalValidation().model_dump(mode="json") for site in others},
            )  # fmt: skip

        return await self._context.write(release)

    def _rollout(self, r: Repository) -> Rollout | None:
        if self._rollout_steps == (100,):
            return None
        groups = [step for step in self._rollout_steps if isinstance(step, str)]
        rings = {group: tuple(r.groups.members(group.removeprefix("group:"))) for group in groups}
        return Rollout(steps=self._rollout_steps, rings=rings)

    async def _judge(self, cycle: Cycle, model: Model, metrics: Json) -> gate.Verdict:
        def find_labels(r: Repository) -> tuple[LabelSpace, LabelSpace | None]:
            student, tutor = r.models.get(cycle.base_student_id), r.models.get(cycle.base_tutor_id)
            if cycle.rebases:  # it also has what the site took along from a group
                own = r.models.get(r.releases.get(cycle.rebases).student_id).labels
                return student.labels, r.classes.labels_of(cycle.scope, tutor.labels.expand(own.names))
            return student.labels, r.classes.labels_of(cycle.scope, tutor.labels)

        base, known = await self._context.read(find_labels)
        labels = gate.check_labels(model.labels, base, known or base)
        if not labels.passed:
            return labels
        try:
            before, after = (DetectionMetrics.model_validate(metrics[when]) for when in ("before", "after"))
        except ValueError:  # a figure that is not a number is stored as null
            return gate.Verdict(False, "a figure on the presumed images is not a number", metrics)
        verdict = gate.check_presumed(before, after, self._max_harm)
        if not verdict.passed or "false_alarms" not in metrics or cycle.recipe.get("presumed_shows_new"):
            return verdict
        alarms = gate.check_false_alarms(metrics["false_alarms"], cycle.recipe.get("max_false_alarms", math.inf))
        return gate.Verdict(alarms.passed, f"{verdict.reason}, {alarms.reason}", verdict.metrics | alarms.metrics)

    async def _record(
        self, cycle: Cycle, state: State, reason: str, metrics: Json, model: Model | None = None, **changes: str
    ) -> Cycle:
        """Record a model and the transition in one; nothing where another run of this step was here first."""

        def record(r: Repository, now: datetime) -> Cycle:
            stored = r.cycles.get(cycle.id)
            if stored.state is not cycle.state:
                return stored
            if model is not None:
                r.models.add(model)
            return r.cycles.move(cycle.id, state, now, transitions.CLOUD, reason, metrics, **changes)

        return await self._context.write(record)

    def _progress_recorder(self, cycle: Cycle) -> Heard:
        """Return a function that records a job's progress in the cycle, at most once a second within a step."""
        last_step, last_at = "", 0.0

        async def record(progress: JobProgress) -> None:
            nonlocal last_step, last_at
            at = self._context.now().timestamp()
            if progress.step == last_step and at - last_at < _REPORT_EVERY_S:
                return
            last_step, last_at = progress.step, at
            fraction = min(max(progress.fraction, 0), 1)
            current = Progress(step=progress.step, fraction=fraction, message=progress.message)

            def store(r: Repository, now: datetime) -> None:
                if r.cycles.get(cycle.id).state is cycle.state:
                    r.cycles.record_progress(cycle.id, current, now)

            await self._context.write(store)

        return record


def _find_receiver(r: Repository, cycle: Cycle) -> Model:
    """Return the model to which the gap is added. Raises WrongState where the recipe's teacher cannot take it."""
    tutor = r.models.get(cycle.base_tutor_id)
    if cycle.recipe.get("receiver") != "teacher":
        return tutor
    for teacher in r.models.all(ModelKind.TEACHER):
        if teacher.architecture == tutor.architecture:
            return teacher
    raise WrongState(
        f"the recipe adds the gap to a teacher, but none is a {tutor.architecture} as the tutor is: use receiver tutor"
    )
