"""`diredi data`: data sets in YOLO format, their labels, and the built-in scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diredi.text import percent
from diredi_cli.options import AsJson, ImageSize, Seed
from diredi_cli.output import emit, facts, heard_by, note, notes, progress, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diredi.data.dataset import CheckReport
    from diredi.evaluation.label_findings import LabelAudit, LabelFinding

app = typer.Typer(
    help="Generate the built-in scenes, check a data set, or find its wrong labels.", no_args_is_help=True
)

_SHOWN_PROBLEMS = 20
_SHOWN_FINDINGS = 20


@app.command("synth")
def synth(
    site: Annotated[str, typer.Argument(help="Whose cameras: presumed (the manufacturer's many), site-1, site-2, ...")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder for images and labels.")],
    train: Annotated[int, typer.Option("--train", min=1, help="Images to train on.")] = 400,
    val: Annotated[int, typer.Option("--val", min=1, help="Held-out images.")] = 100,
    seed: Seed = 0,
    image_size: Annotated[int, typer.Option("--image-size", min=64, max=2048, help="Pixels of the longer side.")] = 320,
    as_json: AsJson = False,
) -> None:
    """Generate scenes of one site's cameras. Same seed, same bytes."""
    from diredi.data.dataset import load
    from diredi.errors import InvalidInput, WrongState
    from diredi_scenes import SITES, write_scenes

    if site not in SITES:
        raise InvalidInput(f"{site!r} is not a built-in site: name one of {', '.join(SITES)}")
    if out.exists() and any(out.iterdir()):
        raise WrongState(f"{out} is not empty: name a new folder")
    with progress(as_json) as bar:
        step = f"Scenes of {site}"
        path = write_scenes(out, site, train, val, seed, image_size, on_progress=heard_by(bar, step))
    dataset = load(path, labelled=False)
    boxes = {"train": dataset.counts("train"), "val": dataset.counts("val")}
    data = {"data": str(path), "site": site, "seed": seed, "train_images": train, "val_images": val, "boxes": boxes}
    rows = [(name, boxes["train"][name], boxes["val"][name]) for name in dataset.names]
    emit(data, as_json, facts({"data": path, "images": f"{train} train, {val} val"}), _boxes_table(rows))


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(metavar="DATA.YAML", help="The set to check, or its folder.")],
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Whether there are labels to check, or images alone.")
    ] = True,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="MODEL", help="A .safetensors, .onnx or .pt file whose class names the set may share."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a data set: every fault by file and line, what is left out, and names that may mean one class.

    Exit code 2 when it cannot be used.
    """
    from diredi.data.dataset import check as check_set
    from diredi.data.notes import counted_noun
    from diredi.errors import InvalidInput
    from diredi.labels import LabelSpace
    from diredi_cli.evaluate import open_predictor

    known = LabelSpace(names=()) if model is None else open_predictor(model).labels
    with progress(as_json) as bar:
        report = check_set(path, read_labels=labels, on_progress=heard_by(bar, "Checking images"))
    meant = known.proposals(report.names)
    shown = _check_shown(report)
    if meant:
        title = "May be one class: say so in `names:`, or in class_names of the site's configuration"
        shown.append(table(("class", "may be"), sorted(meant.items()), title=title))
    emit({**report.model_dump(mode="json"), "ok": report.ok, "class_proposals": meant}, as_json, *shown)
    if not report.ok:
        raise InvalidInput(f"{counted_noun(len(report.problems), 'fault')} in {path}: {_first_problem(report)}")


@app.command("audit")
def audit(
    path: Annotated[Path, typer.Argument(metavar="DATA.YAML", help="The set whose labels are in question.")],
    models: Annotated[
        list[Path],
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A .safetensors, .onnx or .pt file that has not learned from these labels; repeat it for several.",
        ),
    ],
    split: Annotated[
        Literal["train", "val"] | None, typer.Option("--split", help="One split alone; by default both.")
    ] = None,
    image_size: ImageSize = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.HTML", help="A page with a picture of each finding.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find labels that are probably wrong or missing, by what models see. The set is not changed."""
    from diredi.data.dataset import SPLITS, load
    from diredi.errors import InvalidInput, NotFound
    from diredi.evaluation.label_audit import audit_labels
    from diredi_cli.evaluate import check_classes, open_predictor

    if out is not None and out.suffix.lower() not in {".html", ".htm"}:
        raise InvalidInput(
            f"--out {out} is no name of a page, and a file of that name would be replaced: end it in .html"
        )
    if out is not None and not out.absolute().parent.is_dir():
        raise NotFound(f"folder {out.absolute().parent} does not exist: create it, or name another file with --out")
    splits = SPLITS if split is None else (split,)
    dataset = load(path, splits)
    notes(dataset)
    predictors = [open_predictor(model, image_size) for model in models]
    for predictor in predictors:
        check_classes(predictor.labels, dataset, splits)
    with progress(as_json) as bar:
        found = audit_labels(predictors, dataset, splits=splits, on_progress=heard_by(bar, "Looking at images"))
        if out is not None:
            bar.step(f"Writing {out.name}")
            found.write_html(out, str(path))
    for text in found.notes():
        note(f"note: {text}")
    named = {"data": str(path), "models": [str(model) for model in models], "page": out and str(out)}
    emit({**found.model_dump(mode="json"), **named}, as_json, *_audit_shown(found, dataset.root, out))


def _audit_shown(found: LabelAudit, root: Path, page: Path | None) -> list[RenderableType]:
    from diredi.evaluation.label_findings import KINDS

    columns = ("class", "labels", "believed", *KINDS)
    rows = [
        (
            name,
            one.boxes,
            percent(one.believed) if one.known_by and one.boxes else "",
            *(one.findings.get(kind, 0) for kind in KINDS),
        )
        for name, one in found.classes_to_show().items()
    ]
    shown: list[RenderableType] = [
        facts({"labels": found.boxes, "images": found.images, "to look at": len(found.findings)}),
        table(columns, rows, right=columns[1:]),
    ]
    if len(rows) < len(found.per_class):
        shown.append(_line("classes without a label or without a finding are left out (`--json` has them)"))
    if found.findings:
        first = found.findings[:_SHOWN_FINDINGS]
        worst = [(percent(one.score), one.kind, str(one), _place(one, root)) for one in first]
        shown.append(table(("score", "kind", "finding", "where"), worst, title="The surest", right=("score",)))
    if len(found.findings) > _SHOWN_FINDINGS and page is None:
        shown.append(_line(f"... and {len(found.findings) - _SHOWN_FINDINGS} more: `--out` shows all with pictures"))
    if page is not None:
        shown.append(_line(f"pictures: {page}"))
    return shown


def _place(one: LabelFinding, root: Path) -> str:
    image = one.image.relative_to(root) if one.image.is_relative_to(root) else one.image
    return f"{image}" + ("" if one.number is None else f", box {one.number + 1}")


def _first_problem(report: CheckReport) -> str:
    first = report.problems[0].message
    return first if len(report.problems) == 1 else f"first {first}; the others are listed above"


def _check_shown(report: CheckReport) -> list[RenderableType]:
    from diredi.data.notes import counted_noun

    train, val = (report.splits[split].boxes if split in report.splits else {} for split in ("train", "val"))
    images = {
        split: counted_noun(found.images, "image") + (f", {found.background} without a box" if report.names else "")
        for split, found in report.splits.items()
    }
    shown: list[RenderableType] = [facts({"data": report.path, **images})]
    if report.names:
        shown.append(_boxes_table([(name, train.get(name, 0), val.get(name, 0)) for name in report.names]))
    shown += [_line(f"note: {text}") for text in report.notes]
    for problem in report.problems[:_SHOWN_PROBLEMS]:
        shown.append(_line(problem.message))
    if len(report.problems) > _SHOWN_PROBLEMS:
        shown.append(_line(f"... and {len(report.problems) - _SHOWN_PROBLEMS} more (`--json` lists them all)"))
    return shown


def _line(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text)


def _boxes_table(rows: list[tuple[str, int, int]]) -> RenderableType:
    return table(("class", "train boxes", "val boxes"), rows, right=("train boxes", "val boxes"))
