"""The cloud's half of a cycle, a function a state: work, then record what follows and the figures that decided it.

Work is done before the transition that tells of it and may be done twice: jobs keep their results, blobs and models are
named by their digests, and each transaction checks the state that it starts from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Final

from cloud_server import canary, gate
from cloud_server.context import CloudContext
from cloud_server.cycles import transitions
from cloud_server.entities import Cycle, Json, Model, ModelKind, Progress, ReleaseStatus
from cloud_server.jobs.runner import JobRunner, OnProgress
from cloud_server.states import State
from cloud_server.store.repository import Repository
from diredi.errors import WrongState
from diredi.evaluation.metrics import DetectionMetrics
from diredi.jobs import JobProgress

_REPORT_EVERY_S: Final = 1.0


class CyclePipeline:
    def __init__(self, context: CloudContext, job_runner: JobRunner, *, max_harm: float, canary_devices: int) -> None:
        self._context = context
        self._job_runner = job_runner
        self._max_harm = max_harm
        self._canary_devices = canary_devices
        self.table = MappingProxyType(
            {
                State.UPLOADED: self.apply,
                State.APPLIED: self.gate_tutor,
                State.GATED: self.redistil,
                State.REDISTILLED: self.release_to_canaries,
            }
        )

    async def advance(self, cycle: Cycle) -> Cycle:
        """One step. Raises whatever the step raises; the caller decides what that means."""
        step: Callable[[Cycle], Awaitable[Cycle]] = self.table[cycle.state]
        return self._context.moved(await step(cycle))

    async def apply(self, cycle: Cycle) -> Cycle:
        """UPLOADED to APPLIED: the sites' gaps merged and added to the tutor, lambda chosen on the gate's data."""
        receiver = await self._context.database.read(lambda r: _receiver(r, cycle))
        made = await self._job_runner.apply_gaps(cycle, receiver, self._progress_of(cycle))
        model = await self._job_runner.store_model(
            receiver.kind, made, cycle.id, receiver.id, presumed=made.after, created=self._context.now()
        )
        gaps = "gap" if len(cycle.gaps) == 1 else f"gaps of {len(cycle.gaps)} sites merged and"
        return await self._moved(
            cycle,
            State.APPLIED,
            f"{gaps} added to the {receiver.kind}",
            made.to_record(),
            model,
            updated_tutor_id=model.id,
        )

    async def gate_tutor(self, cycle: Cycle) -> Cycle:
        """APPLIED to GATED or REJECTED."""
        figures = cycle.figures_of(State.APPLIED)
        tutor = await self._context.database.read(lambda r: r.models.get(cycle.updated_tutor_id))
        verdict = await self._verdict(cycle, tutor, figures)
        return await self._moved(
            cycle, State.GATED if verdict.passed else State.REJECTED, f"tutor: {verdict.reason}", verdict.figures
        )

    async def redistil(self, cycle: Cycle) -> Cycle:
        """GATED to REDISTILLED or REJECTED: a student from the updated tutor, gated as the very file that will ship."""
        tutor, student = await self._context.database.read(
            lambda r: (r.models.get(cycle.updated_tutor_id), r.models.get(cycle.base_student_id))
        )
        made = await self._job_runner.redistil(cycle, tutor, student, self._progress_of(cycle))
        model = await self._job_runner.store_model(
            ModelKind.STUDENT, made, cycle.id, student.id, presumed=made.after, created=self._context.now()
        )
        verdict = await self._verdict(cycle, model, made.to_record())
        figures = made.to_record() | verdict.figures
        state = State.REDISTILLED if verdict.passed else State.REJECTED
        moved = await self._moved(
            cycle, state, f"student: {verdict.reason}", figures, model, updated_student_id=model.id
        )
        self._job_runner.discard(cycle.id, "apply")
        self._job_runner.discard(cycle.id, "redistil")
        return moved

    async def release_to_canaries(self, cycle: Cycle) -> Cycle:
        """REDISTILLED to CANARY: release and state in one transaction, so there is never one without the other."""
        now, online = self._context.now(), set(self._context.open_streams)

        def release(r: Repository) -> Cycle:
            if r.cycles.get(cycle.id).state is not cycle.state:
                return r.cycles.get(cycle.id)
            if newer := transitions.explain_superseded(r, cycle):
                return r.cycles.move(cycle.id, State.FAILED, now, transitions.CLOUD, newer)
            canaries = self._canaries(r, cycle, online)
            student = r.models.get(cycle.updated_student_id)
            made = r.releases.add(student, cycle.updated_tutor_id, ReleaseStatus.CANARY, canaries, cycle.id, now)
            who = "the site validates it" if len(cycle.active_parts) == 1 else "each site validates it"
            said = f"release {made.version} for {', '.join(canaries) or 'no device yet'}; {who}"
            return r.cycles.move(cycle.id, State.CANARY, now, transitions.CLOUD, said, release_version=made.version)

        return await self._context.database.write(release)

    def _canaries(self, r: Repository, cycle: Cycle, online: set[str]) -> list[str]:
        """Some devices of each site: what one site's cameras show says little of another's."""
        chosen: list[str] = []
        for part in cycle.active_parts:
            devices = r.devices.of_site(part.site)
            connected = {d.key for d in devices if f"device/{d.key}" in online}
            chosen += canary.choose_canaries(devices, connected, self._canary_devices)
        return chosen

    async def _verdict(self, cycle: Cycle, model: Model, figures: Json) -> gate.Verdict:
        base, known = await self._context.database.read(
            lambda r: (r.models.get(cycle.base_student_id).labels, r.classes.labels())
        )
        labels = gate.check_labels(model.labels, base, known or base)
        if not labels.passed:
            return labels
        try:
            before, after = (DetectionMetrics.model_validate(figures[when]) for when in ("before", "after"))
        except ValueError:  # a figure that is not a number is stored as null
            return gate.Verdict(False, "a figure on the presumed images is not a number", figures)
        return gate.check_presumed(before, after, self._max_harm)

    async def _moved(
        self, cycle: Cycle, state: State, reason: str, figures: Json, model: Model | None = None, **changes: str
    ) -> Cycle:
        """Model and transition in one transaction; nothing when another run of this step was here first."""
        now = self._context.now()

        def move(r: Repository) -> Cycle:
            stored = r.cycles.get(cycle.id)
            if stored.state is not cycle.state:
                return stored
            if model is not None:
                r.models.add(model)
            return r.cycles.move(cycle.id, state, now, transitions.CLOUD, reason, figures, **changes)

        return await self._context.database.write(move)

    def _progress_of(self, cycle: Cycle) -> OnProgress:
        """Stores what a job says of itself, once a second at most."""
        last_step, last_at = "", 0.0

        async def heard(progress: JobProgress) -> None:
            nonlocal last_step, last_at
            now = self._context.now()
            if progress.step == last_step and now.timestamp() - last_at < _REPORT_EVERY_S:
                return
            last_step, last_at = progress.step, now.timestamp()
            told = Progress(step=progress.step, fraction=min(max(progress.fraction, 0), 1), message=progress.message)

            def report(r: Repository) -> Cycle:
                stored = r.cycles.get(cycle.id)
                return r.cycles.record_progress(cycle.id, told, now) if stored.state is cycle.state else stored

            self._context.progressed(await self._context.database.write(report))

        return heard


def _receiver(r: Repository, cycle: Cycle) -> Model:
    """What the gap is added to. Raises WrongState when the recipe wants a teacher that cannot take it."""
    tutor = r.models.get(cycle.base_tutor_id)
    if cycle.recipe.get("receiver") != "teacher":
        return tutor
    for teacher in r.models.all(ModelKind.TEACHER):
        if teacher.architecture == tutor.architecture:
            return teacher
    raise WrongState(
        f"the recipe adds the gap to a teacher, but none is a {tutor.architecture} as the tutor is: use receiver tutor"
    )
