"""Who may read which blob.

Devices may read the students that they run. Sites may also read the models and the coreset that they learn from. Both
may read only what is of a scope that they are in. Operators may read everything, and nobody else may read a site's gap.
"""

from __future__ import annotations

from functools import partial

from cloud_server.context import CloudContext
from cloud_server.notifier import RELEASES
from cloud_server.scopes import visible_scopes
from cloud_server.store import Repository
from diredi.errors import NotFound
from diredi.trust.identity import Identity, Role


class BlobAccess:
    """Keeps the published digests in memory, and reads them again when it is asked for one that it does not know."""

    def __init__(self, context: CloudContext) -> None:
        self._context = context
        self._groups: dict[str, str] = {}
        self._groups_version = -1
        self._runnable: dict[str, frozenset[str]] = {}
        self._learnable: dict[str, frozenset[str]] = {}
        """Digests by scope."""

    def check(self, caller: Identity, digest: str) -> None:
        """Refuse a caller who may not read a blob.

        Raises:
            NotFound: The caller may not read it. Whether it exists is not told.
        """
        scopes = self._find_scopes(caller)
        if scopes is None or self._may_read(caller, scopes, digest):
            return
        for scope in scopes:
            self._runnable[scope], self._learnable[scope] = self._context.database.transact(
                partial(_list_published, scope=scope), writes=False
            )
        if not self._may_read(caller, scopes, digest):
            raise NotFound(f"there is no blob {digest[:80]} for {caller}: ask for one that a task or a release names")

    def _find_scopes(self, caller: Identity) -> tuple[str, ...] | None:
        version = self._context.notifier.version(RELEASES)  # which a change of the groups raises, too
        if version != self._groups_version:
            self._groups = self._context.database.transact(lambda r: r.groups.by_site(), writes=False)
            self._groups_version = version
        return visible_scopes(caller, self._groups)

    def _may_read(self, caller: Identity, scopes: tuple[str, ...], digest: str) -> bool:
        published = [self._runnable] if caller.role is not Role.SITE else [self._runnable, self._learnable]
        return any(digest in by_scope.get(scope, ()) for by_scope in published for scope in scopes)


def _list_published(r: Repository, scope: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the digests of what devices of a scope run and of what its sites learn from."""
    models = r.models.all(visible=(scope,))
    coreset = r.facts.coreset
    runnable = {model.onnx.digest for model in models if model.onnx is not None}
    learnable = {model.weights.digest for model in models} | ({coreset.digest} if coreset else set())
    return frozenset(runnable), frozenset(learnable)
