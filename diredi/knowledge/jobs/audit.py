"""Site job: before anything is trained, the deployed models say which labels of the site they do not believe.

A person at the site is shown them, with pictures. Nothing is corrected, since a model that is sure may be wrong, and
nothing of it leaves the site: whoever made the models chooses what they see, so even a count of what they miss in the
labels would answer a question about the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diredi.data.dataset import Dataset
from diredi.detectors.base import Detector
from diredi.evaluation.label_audit import audit_labels
from diredi.evaluation.label_findings import LabelAudit
from diredi.knowledge.jobs.specs import AuditCounts
from diredi.progress import OnProgress
from diredi.store.files import atomic_write, read_state

HELD_OUT = 4
"""One held-out image is looked at for so many to learn from."""


def audit(
    site: Dataset,
    models: Sequence[Detector],
    images: int,
    folder: Path,
    seed: int,
    on_progress: OnProgress | None = None,
) -> AuditCounts | None:
    """Look for wrong labels in some images of a site, and write what was found as a page with pictures.

    Args:
        site: The site's data set.
        models: The deployed models; those that know none of the site's classes are not asked.
        images: How many training images are looked at; a quarter as many held-out ones are.
        folder: Where `label-audit.html` goes. A job that was killed finds its audit there and does not repeat it.
        seed: Draws the images.
        on_progress: Hears of the step "audit".

    Returns:
        What the site's own log is told; None where no model knows a class of the site.

    Raises:
        DatasetError: An image cannot be read.
    """
    kept, page = folder / "label-audit.json", folder / "label-audit.html"
    done = read_state(kept, AuditCounts.model_validate_json)
    if done is not None and page.is_file():
        return done
    able = [model for model in models if set(model.spec.labels.names) & set(site.names)]
    if not able:
        return None
    found = audit_labels(able, site.sample(images, seed, images // HELD_OUT), on_progress=on_progress)
    found.write_html(page, str(site.root))
    counts = _counts(found, page)
    atomic_write(kept, counts.model_dump_json())
    return counts


def _counts(found: LabelAudit, page: Path) -> AuditCounts:
    return AuditCounts(
        images=found.images,
        labels=found.boxes,
        findings={kind: _about(count) for kind, count in found.counts().items() if count},
        not_audited=found.not_audited,
        page=page,
    )


def _about(count: int) -> int:
    """Round to fives: nobody needs more to see whether the page is worth the time."""
    return max(5, 5 * round(count / 5))
