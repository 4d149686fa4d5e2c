"""Uploads in the database: which site has sent which blob, and for which cycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import and_, delete, func, select
from sqlalchemy.orm import Session

from cloud_server.states import ENDS, State
from cloud_server.store.schema import CycleRow, FactRow, ModelRow, PartRow, UploadRow

_OPEN = and_(
    UploadRow.cycle_id == PartRow.cycle_id,
    UploadRow.site == PartRow.site,
    PartRow.state.in_([State.OFFERED.value, State.EXTRACTING.value]),
    CycleRow.id == PartRow.cycle_id,
    CycleRow.state.not_in([state.value for state in ENDS]),
)


@dataclass(frozen=True)
class Usage:
    """What a site has sent for a cycle, accepted or not."""

    blobs: int
    bytes: int


@dataclass(frozen=True)
class Reference:
    """A blob that the cloud cannot do without, and what is made of it."""

    digest: str
    bytes: int
    needed_by: tuple[str, ...]


class Uploads:
    """The uploads of sites that are under way or wait for their manifest."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def usage(self, site: str, cycle_id: str, but: str) -> Usage:
        """Return what a site has sent for a cycle, one blob left out."""
        query = select(func.count(), func.coalesce(func.sum(UploadRow.bytes), 0)).where(
            UploadRow.site == site, UploadRow.cycle_id == cycle_id, UploadRow.digest != but
        )
        blobs, total = self._session.execute(query).one()
        return Usage(int(blobs), int(total))

    def add(self, digest: str, site: str, cycle_id: str, total_bytes: int) -> bool:
        """Record whose a blob is, and for which cycle; recorded again, the last one counts.

        Returns:
            Whether the site has sent all of it before.
        """
        complete = self.is_complete(digest, site)
        row = UploadRow(digest=digest, site=site, cycle_id=cycle_id, bytes=total_bytes, complete=complete)
        self._session.merge(row)
        self._session.flush()
        return complete

    def complete(self, digest: str, site: str) -> None:
        """Record that a site has sent all of a blob."""
        row = self._session.get(UploadRow, (digest, site))
        if row is not None:
            row.complete = True
            self._session.flush()

    def is_complete(self, digest: str, site: str) -> bool:
        """Return whether a site has sent all of a blob, for a task that is not over."""
        row = self._session.get(UploadRow, (digest, site))
        return row is not None and row.complete

    def remove(self, digest: str, site: str) -> None:
        """Forget an upload; nothing happens where there is none."""
        self._session.execute(delete(UploadRow).where(UploadRow.digest == digest, UploadRow.site == site))

    def remove_ended(self) -> list[str]:
        """Forget the uploads whose site has no open task for their cycle any more, and return their digests."""
        ended = ~select(PartRow.site).where(_OPEN).exists()
        digests = sorted(set(self._session.scalars(select(UploadRow.digest).where(ended))))
        self._session.execute(delete(UploadRow).where(ended))
        return digests

    def open(self) -> set[str]:
        """Return the digests of the uploads whose site still works for their cycle."""
        return set(self._session.scalars(select(UploadRow.digest)))

    def referenced(self) -> dict[str, int]:
        """Return digest and size of every blob that a model, an accepted gap or the coreset is made of."""
        return {digest: size for digest, size, _ in self._references()}

    def references(self) -> list[Reference]:
        """Return every blob that a model, an accepted gap or the coreset is made of, with all that need it."""
        found: dict[str, Reference] = {}
        for digest, size, needed_by in self._references():
            others = found[digest].needed_by if digest in found else ()
            found[digest] = Reference(digest, size, (*others, needed_by))
        return list(found.values())

    def _references(self) -> Iterator[tuple[str, int, str]]:
        models = select(ModelRow.id, ModelRow.kind, ModelRow.weights, ModelRow.onnx)
        for model, kind, weights, onnx in self._session.execute(models):
            for what, blob in (("weights", weights), ("ONNX file", onnx)):
                if blob:
                    yield blob["digest"], blob["bytes"], f"{what} of {kind} {model.removeprefix('sha256:')[:12]}"
        gaps = select(PartRow.cycle_id, PartRow.site, PartRow.gap).where(PartRow.gap.is_not(None))
        for cycle, site, manifest in self._session.execute(gaps):
            for name in ("tutor_gap", "student_gap"):
                if manifest and manifest.get(name):
                    blob, what = manifest[name]["blob"], name.replace("_", " ")
                    yield blob["digest"], blob["bytes"], f"{what} of {site} in cycle {cycle}"
        coreset = self._session.get(FactRow, "coreset")
        if coreset is not None:
            yield coreset.value["digest"], coreset.value["bytes"], "coreset"
