"""A page of what an audit of labels has found, with pictures: one file that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import diredi
from diredi.data.images import encode_jpeg, read_image
from diredi.data.notes import counted_noun
from diredi.evaluation.label_findings import KINDS, Corners, FindingKind, LabelAudit, LabelFinding
from diredi.store.files import atomic_write

STYLE = Path(diredi.__file__).with_name("page.css")
"""The style that all pages share."""
_SIDE = 240
_LEAST_SIDE = 64
_AROUND = 1.8
"""How much of the image is shown, times the longer side of the boxes."""
_TEXTS: dict[FindingKind, tuple[str, str, str, str]] = {
    "wrong class": ("Wrong class", "The models are sure of another class here.", "label", "what the models see"),
    "missing": ("Missing", "The models are sure of an object that has no label.", "", "what the models see"),
    "misplaced": ("Misplaced", "The models find the class beside the label.", "label", "where the models see it"),
    "nothing there": ("Nothing there", "The models see nothing where the label is.", "label", ""),
    "duplicate": ("Duplicate", "Two labels are on one object.", "label that is believed less", "other label"),
}
"""Title, explanation, and what the dashed and the other box are; empty where there is none."""


def write_audit_page(audit: LabelAudit, path: Path, source: str, most: int) -> None:
    """Write the page, complete or not at all; every text that came from data is escaped.

    Args:
        audit: What was found.
        path: The file.
        source: Which data set it was, as the page says it.
        most: How many findings of each kind are shown, the surest first.

    Raises:
        DatasetError: An image cannot be read any more.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("diredi", "evaluation"), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("audit_page.html").render(
        audit=audit,
        css=Markup(STYLE.read_text()),
        version=diredi.__version__,
        source=source,
        headline=f"{counted_noun(len(audit.findings), 'finding')} in {counted_noun(audit.boxes, 'label')}",
        classes=audit.classes_to_show(),
        notes=audit.notes(),
        groups=[_group(audit, kind, most) for kind in KINDS],
    )
    atomic_write(path, text, durable=False)


def _group(audit: LabelAudit, kind: FindingKind, most: int) -> dict[str, Any]:
    mine = [found for found in audit.findings if found.kind == kind]
    title, text, label, seen = _TEXTS[kind]
    crops = [_crop(found) for found in mine[:most]]
    return {
        "kind": kind,
        "title": title,
        "text": text,
        "count": len(mine),
        "label": label,
        "seen": seen,
        "crops": crops,
    }


def _crop(found: LabelFinding) -> dict[str, Any]:
    from markupsafe import Markup

    where = f"{found.split}/{found.image.name}" + ("" if found.number is None else f", box {found.number + 1}")
    return {"text": str(found), "where": f"{where}, score {100 * found.score:.0f}", "svg": Markup(_svg(found))}


def _svg(found: LabelFinding) -> str:
    """The place in the image, with the boxes on it."""
    boxes = [box for box in (found.box, found.seen_box) if box is not None]
    left, top, piece = _cut(read_image(found.image), boxes)
    height, width = piece.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(piece, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    data = base64.b64encode(encode_jpeg(np.asarray(small, np.uint8), 80)).decode()
    outlines = "".join(
        _rectangle(box, style) for box, style in ((found.seen_box, "box"), (found.box, "box truth")) if box is not None
    )
    return (
        f'<svg viewBox="{left} {top} {width} {height}" role="img" aria-label="{escape(str(found), quote=True)}">'
        f'<image x="{left}" y="{top}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="data:image/jpeg;base64,{data}"/>{outlines}</svg>'
    )


def _cut(image: NDArray[np.uint8], boxes: Sequence[Corners]) -> tuple[int, int, NDArray[np.uint8]]:
    """Cut a square around boxes, as far as it is in the image; its left and top edge come first."""
    table = np.array(boxes)
    low, high = table[:, :2].min(0), table[:, 2:].max(0)
    side = max(_AROUND * float((high - low).max()), _LEAST_SIDE)
    limit = np.array([image.shape[1], image.shape[0]])
    first = np.clip((low + high - side) / 2, 0, limit - 1).astype(int)
    last = np.clip((low + high + side) / 2, first + 1, limit).astype(int)
    return int(first[0]), int(first[1]), image[first[1] : last[1], first[0] : last[0]]


def _rectangle(box: Corners, style: str) -> str:
    x1, y1, x2, y2 = box
    return f'<rect class="{style}" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"/>'
