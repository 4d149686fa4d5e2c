"""How much of each thing one party may make grow. Each refusal is NoRoom (RESOURCE_EXHAUSTED), in one sentence."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cloud_server.entities import Model
from diredi.errors import InvalidInput, NoRoom

_SPARE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Quotas:
    """The quotas of the cloud.

    Attributes:
        uploads_per_cycle: Blobs that a site may send for one cycle.
        classes_per_cycle: New class names that a site may propose in one cycle.
        classes_per_site: New class names that a site may propose in all cycles.
        classes: Names in one label space.
        installs_per_device: Installations that are kept of a device, the newest ones.
        manifest_bytes: Size of a gap's manifest.
    """

    uploads_per_cycle: int = 64
    classes_per_cycle: int = 500
    classes_per_site: int = 1000
    classes: int = 5000
    installs_per_device: int = 50
    manifest_bytes: int = 2**20

    def check_upload(self, site: str, bases: Collection[Model], blobs: int, sent_bytes: int) -> None:
        """Refuse an upload that makes a site's uploads for a cycle too many, or too large for what a gap can weigh.

        Args:
            site: The site.
            bases: The models that its gaps are differences to.
            blobs: Its uploads for this cycle, this one included.
            sent_bytes: The size of all of them.

        Raises:
            NoRoom: They are too many, or too large.
        """
        most_bytes = 2 * sum(base.weights.bytes for base in bases) + _SPARE_BYTES
        if blobs > self.uploads_per_cycle:
            raise NoRoom(f"site {site!r} has sent {blobs - 1} files for this cycle: at most so many are taken")
        if sent_bytes > most_bytes:
            raise NoRoom(f"site {site!r} would send {sent_bytes} bytes for this cycle: at most {most_bytes} are taken")

    def check_classes(self, site: str, *, in_cycle: int, of_site: int, in_all: int) -> None:
        """Refuse new class names that are too many.

        Args:
            site: The site that proposes them.
            in_cycle: New names of this site in this cycle, these included.
            of_site: New names of this site in all cycles, these included.
            in_all: Names in the label space, these included.

        Raises:
            NoRoom: They are too many for the cycle, the site or the label space.
        """
        for count, most, where in (
            (in_cycle, self.classes_per_cycle, "new ones that a site may propose in a cycle"),
            (of_site, self.classes_per_site, "new ones that a site may propose"),
            (in_all, self.classes, "that a label space may have"),
        ):
            if count > most:
                raise NoRoom(f"site {site!r} proposes too many classes: {count} are more than the {most} {where}")


def check_metrics_names(names: Collection[str], known: Collection[str], what: str) -> None:
    """Refuse metrics of classes that nobody has an id for.

    Raises:
        InvalidInput: A name is not known.
    """
    invented = sorted(set(names) - set(known))
    if invented:
        raise InvalidInput(f"{what} has metrics of {invented[0][:64]!r}, which has no id: propose the class first")
