"""Who may read which blob: it follows from tasks and releases, and from nothing else.

A site may read what its open tasks name, and the students that are released for it. A device may read the files of the
releases that it may run. Operators and admins may read everything. A rejected candidate, a model that is not
released yet, and what another site has sent are to everybody else as if they were not there.
"""

from __future__ import annotations

from functools import partial

from cloud_server.canary import may_run
from cloud_server.context import CloudContext
from cloud_server.entities import Model, ModelKind, Release, device_key
from cloud_server.notifier import RELEASES
from cloud_server.scopes import scopes_of
from cloud_server.sites.service import list_assignments
from cloud_server.store import Repository
from diredi.errors import NotFound
from diredi.trust.identity import Identity, Role


class BlobAccess:
    """Keeps the releases and groups in memory, as many devices ask at once, and reads them again when they change."""

    def __init__(self, context: CloudContext) -> None:
        self._context = context
        self._version = -1
        self._releases: list[tuple[Release, Model]] = []
        self._groups: dict[str, str] = {}

    def check(self, caller: Identity, digest: str) -> None:
        """Refuse a caller who may not read a blob.

        Raises:
            NotFound: The caller may not read it. Whether it exists is not told.
        """
        if caller.role.includes(Role.OPERATOR):
            return
        if self._is_released(caller, digest) or self._is_of_a_task(caller, digest):
            return
        raise NotFound(f"there is no blob {digest[:80]} for {caller}: ask for one that a task or a release names")

    def _is_released(self, caller: Identity, digest: str) -> bool:
        if caller.role not in {Role.SITE, Role.DEVICE}:
            return False
        version = self._context.notifier.version(RELEASES)  # which a change of the groups raises, too
        if version != self._version:
            self._releases, self._groups = self._context.database.transact(_read_releases, writes=False)
            self._version = version
        scopes = scopes_of(caller.site, self._groups.get(caller.site, ""))
        device = device_key(caller.site, caller.name) if caller.role is Role.DEVICE else ""
        for release, student in self._releases:
            # Its weights say no more than its file does; a site adapts them to its cameras.
            files = (student.onnx, student.weights if caller.role is Role.SITE else None)
            is_its = any(file and file.digest == digest for file in files)
            if is_its and release.scope in scopes and may_run(device, release):
                return True
        return False

    def _is_of_a_task(self, caller: Identity, digest: str) -> bool:
        if caller.role is not Role.SITE:
            return False
        return digest in self._context.database.transact(partial(_list_task_blobs, site=caller.name), writes=False)


def _read_releases(r: Repository) -> tuple[list[tuple[Release, Model]], dict[str, str]]:
    """Return each release with its student, and the group of each site."""
    students = {model.id: model for model in r.models.all(ModelKind.STUDENT)}
    return [(release, students[release.student_id]) for release in r.releases.all()], r.groups.by_site()


def _list_task_blobs(r: Repository, site: str) -> set[str]:
    """Return the digests that a site's open tasks name."""
    return {blob.digest for assignment in list_assignments(r, site) for blob in assignment.blobs}
