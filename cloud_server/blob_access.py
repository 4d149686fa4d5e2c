"""Who may read which blob: a device what it may run, a site also what it learns from, nobody another site's gap."""

from __future__ import annotations

from cloud_server.context import CloudContext
from cloud_server.store.repository import Repository
from diredi.errors import NotFound
from diredi.trust.identity import Identity, Role


class BlobAccess:
    """Knows the published digests by heart, and looks again when it is asked for one that it does not know."""

    def __init__(self, context: CloudContext) -> None:
        self._context = context
        self._runnable: frozenset[str] = frozenset()
        self._learnable: frozenset[str] = frozenset()

    def check(self, caller: Identity, digest: str) -> None:
        """Raises NotFound: whoever may not read a blob is not told whether it exists."""
        if caller.role is Role.OPERATOR or self._published(caller, digest):
            return
        self._runnable, self._learnable = self._context.database.transact(_published, writes=False)
        if not self._published(caller, digest):
            raise NotFound(f"there is no blob {digest[:80]} for {caller}: ask for one that a task or a release names")

    def _published(self, caller: Identity, digest: str) -> bool:
        return digest in self._runnable or (caller.role is Role.SITE and digest in self._learnable)


def _published(r: Repository) -> tuple[frozenset[str], frozenset[str]]:
    models = r.models.all()
    coreset = r.facts.coreset
    runnable = {model.onnx.digest for model in models if model.onnx is not None}
    learnable = {model.weights.digest for model in models} | ({coreset.digest} if coreset else set())
    return frozenset(runnable), frozenset(learnable)
