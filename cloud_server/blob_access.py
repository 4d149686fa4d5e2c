"""Who may read which blob.

Devices may read the students that they run. Sites may also read the models and the coreset that they learn from.
Operators may read everything, and nobody else may read a site's gap.
"""

from __future__ import annotations

from cloud_server.context import CloudContext
from cloud_server.store import Repository
from diredi.errors import NotFound
from diredi.trust.identity import Identity, Role


class BlobAccess:
    """Keeps the published digests in memory, and reads them again when it is asked for one that it does not know."""

    def __init__(self, context: CloudContext) -> None:
        self._context = context
        self._runnable: frozenset[str] = frozenset()
        self._learnable: frozenset[str] = frozenset()

    def check(self, caller: Identity, digest: str) -> None:
        """Refuse a caller who may not read a blob.

        Raises:
            NotFound: The caller may not read it. Whether it exists is not told.
        """
        if caller.role is Role.OPERATOR or self._may_read(caller, digest):
            return
        self._runnable, self._learnable = self._context.database.transact(_list_published, writes=False)
        if not self._may_read(caller, digest):
            raise NotFound(f"there is no blob {digest[:80]} for {caller}: ask for one that a task or a release names")

    def _may_read(self, caller: Identity, digest: str) -> bool:
        return digest in self._runnable or (caller.role is Role.SITE and digest in self._learnable)


def _list_published(r: Repository) -> tuple[frozenset[str], frozenset[str]]:
    """Return the digests of what devices run and of what sites learn from."""
    models = r.models.all()
    coreset = r.facts.coreset
    runnable = {model.onnx.digest for model in models if model.onnx is not None}
    learnable = {model.weights.digest for model in models} | ({coreset.digest} if coreset else set())
    return frozenset(runnable), frozenset(learnable)
