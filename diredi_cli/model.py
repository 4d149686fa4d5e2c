"""`diredi model`: the cloud's registry of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diredi.text import bytes_text, percent
from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, facts, progress, table, time_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from diredi.detectors.spec import DetectorSpec
    from diredi.evaluation.metrics import DetectionMetrics
    from diredi.rpc.client import Channel
    from diredi.rpc.v1.common_pb2 import Model

app = typer.Typer(help="Models in the cloud's registry.", no_args_is_help=True)

ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="Its id, or the first 8 or more hex digits of it.")]


Kind = Literal["teacher", "tutor", "student"]
Format = Literal["safetensors", "onnx", "ultralytics", "frigate"]


@app.command("list")
def list_models(
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only models of this kind.")] = None,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """List models, newest first."""
    from diredi.rpc.v1 import common_pb2
    from diredi.rpc.v1.registry_pb2 import ListModelsRequest, ListModelsResponse
    from diredi.rpc.v1.registry_pb2_grpc import RegistryServiceStub
    from diredi_cli.connection import list_all
    from diredi_cli.proto_json import message_to_dict, to_datetime

    wanted = common_pb2.ModelKind.Value(f"MODEL_KIND_{kind.upper()}" if kind else "MODEL_KIND_UNSPECIFIED")
    response: ListModelsResponse = list_all(
        cloud,
        identity,
        lambda channel: RegistryServiceStub(channel).ListModels,
        ListModelsRequest(kind=wanted),
        "models",
    )
    rows = [
        (
            short_id(model.id),
            kind_of(model),
            model.architecture,
            len(model.labels.classes),
            bytes_text(model.weights.bytes),
            percent(model.presumed.map50),
            model.scope,
            model.cycle_id or "first",
            time_text(to_datetime(model.created)),
        )
        for model in response.models
    ]
    columns = ("model", "kind", "architecture", "classes", "weights", "mAP50", "scope", "cycle", "made")
    right = ("classes", "weights", "mAP50")
    emit([message_to_dict(model) for model in response.models], as_json, table(columns, rows, right=right))


@app.command("show")
def show(
    model_id: ModelId,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Show one model: what it is, where it came from and how good it is."""
    from diredi_cli.proto_json import message_to_dict, to_datetime

    model = _get(cloud, identity, model_id)
    values = {
        "model": model.id,
        "kind": kind_of(model),
        "architecture": f"{model.architecture} at {model.image_size} px",
        "classes": ", ".join(entry.name for entry in model.labels.classes),
        "weights": bytes_text(model.weights.bytes),
        "ONNX": bytes_text(model.onnx.bytes) if model.HasField("onnx") else "none",
        "came from": model.parent_id or "nothing, it is a first one",
        "scope": model.scope,
        "cycle": model.cycle_id or "none",
        "made": time_text(to_datetime(model.created)),
    }
    presumed = model.presumed
    rows = [
        ("all", percent(presumed.map50), percent(presumed.map50_95), ""),
        *(
            (name, percent(metrics.ap50), percent(metrics.ap50_95), metrics.boxes)
            for name, metrics in sorted(presumed.per_class.items())
        ),
    ]
    columns = ("presumed data", "AP50", "AP50-95", "boxes")
    emit(message_to_dict(model), as_json, facts(values), table(columns, rows, right=columns[1:]))


@app.command("export")
def export(
    model_id: ModelId,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the file goes; for Frigate, a folder.")],
    form: Annotated[
        Format | None, typer.Option("--format", help="What to export; by default what the file's name ends with.")
    ] = None,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Download a model: its weights as safetensors, or the ONNX file that devices run. Verified by digest.

    `ultralytics` is an ONNX file with decoded boxes and the metadata of Ultralytics' exports, which other programs
    read, too. `frigate` is a folder with such a file, the label map and the lines for Frigate's configuration.
    """
    from diredi.errors import NotFound
    from diredi.rpc.blobs import download
    from diredi.rpc.convert import blob_from
    from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
    from diredi.store.blobs import digest_of_file
    from diredi.store.files import atomic_write
    from diredi_cli import frigate
    from diredi_cli.connection import with_cloud

    chosen = form or ("onnx" if out.suffix == ".onnx" else "safetensors")
    model = _get(cloud, identity, model_id)
    is_weights, is_folder = chosen == "safetensors", chosen == "frigate"
    decode = _decoder() if chosen in ("ultralytics", "frigate") else None
    if not is_weights and not model.HasField("onnx"):
        raise NotFound(
            f"model {short_id(model.id)} is a {kind_of(model)} and has no ONNX file: use --format safetensors"
        )
    blob = blob_from(model.weights if is_weights else model.onnx)
    (out if is_folder else out.parent).mkdir(parents=True, exist_ok=True)
    file = out / frigate.MODEL if is_folder else out
    fetched = file if decode is None else file.with_name(f".{file.name}.raw")

    async def work(channel: Channel) -> None:
        with progress(as_json) as bar:
            step = f"Downloading {out.name}"
            await download(
                BlobServiceStub(channel),
                blob,
                fetched,
                on_bytes=lambda done, total: bar.step(step, done / max(total, 1)),
            )

    with_cloud(cloud, identity, work)
    if decode is not None:
        spec = decode(fetched, file)
        fetched.unlink()
        blob = digest_of_file(file)
        if is_folder:
            atomic_write(out / frigate.LABELS, frigate.label_map(spec))
            atomic_write(out / frigate.CONFIG, frigate.configuration(spec))
    data = {"model": model.id, "file": str(file), "format": chosen, "bytes": blob.bytes, "digest": blob.digest}
    next_step = {"next": f"follow {out / frigate.CONFIG}"} if is_folder else {}
    emit(data, as_json, facts({"file": file, "size": bytes_text(blob.bytes), "digest": blob.digest, **next_step}))


def _decoder() -> Callable[[Path, Path], DetectorSpec]:
    """Return what turns the file that devices run into one with decoded boxes."""
    try:
        from diredi.detectors.decoded_onnx import decode_in_file
    except ModuleNotFoundError as error:
        from diredi.errors import InvalidInput

        raise InvalidInput(f"this format needs {error.name}, which is not installed: pip install onnx") from None
    return decode_in_file


@app.command("lineage")
def lineage(
    version: Annotated[int, typer.Argument(metavar="RELEASE", min=1, help="The number of a release.")],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Show what a release is made of: its models, the gaps of which sites, figures, and all releases that it stands on.

    Each step is an entry of the cloud's log of decisions; its digest is checked here.
    """
    from diredi.rpc.release_signing import fetch_lineage
    from diredi_cli.connection import with_cloud

    steps = with_cloud(cloud, identity, lambda channel: fetch_lineage(channel, version))
    rows = []
    for step in steps:
        said, details = step.entry, step.details
        gaps = "; ".join(
            f"{gap['site']} {short_id(gap['tutor_gap'])}"
            + (f", for the student {short_id(gap['student_gap'])}" if gap["student_gap"] else "")
            + (f", signed with certificate {gap['certificate'][:12]}" if gap["certificate"] else "")
            for gap in details["gaps"]
        )
        rows.append(
            (
                step.version,
                said["scope"],
                ", ".join(map(str, step.parents)) or "nothing",
                details["cycle"] or "the first training",
                short_id(details["tutor"]),
                short_id(said["student"]),
                gaps or "none",
                percent(details["figures"].get("map50") or 0.0),
                step.index,
            )
        )
    columns = ("release", "scope", "stands on", "cycle", "tutor", "student", "gaps of", "mAP50", "entry")
    data = [
        {"version": step.version, "parents": list(step.parents), "index": step.index, **step.entry, **step.details}
        for step in steps
    ]
    emit(data, as_json, table(columns, rows, right=("release", "mAP50", "entry")))


@app.command("quantise")
def quantise_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file that devices run.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="DATA.YAML", help="The site's own images: those of train calibrate, those of val judge."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the 8-bit file goes.")],
    images: Annotated[int, typer.Option("--images", metavar="N", min=1, help="Calibrate with so many images.")] = 64,
    max_loss: Annotated[
        float, typer.Option("--max-loss", metavar="POINTS", help="The most mAP50-95 that may be lost.")
    ] = 1.0,
    max_class_loss: Annotated[
        float,
        typer.Option(
            "--max-class-loss", metavar="POINTS", help="The most that a class with 10 or more boxes may lose."
        ),
    ] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Write a model with 8 bits, calibrated with a site's own images, if it loses little on its held-out ones."""
    import tempfile

    from diredi.data.dataset import load
    from diredi.data.images import read_image
    from diredi.detectors.onnx import OnnxPredictor
    from diredi.detectors.quantisation import explain_loss, quantise
    from diredi.errors import InvalidInput
    from diredi.evaluation.detection import evaluate
    from diredi.store.files import atomic_write
    from diredi_cli.evaluate import check_classes
    from diredi_cli.output import heard_by, notes

    dataset = load(data)
    notes(dataset)
    before = OnnxPredictor(model)
    check_classes(before.labels, dataset, ("val",))
    with progress(as_json) as bar, tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "quantised.onnx"
        chosen = dataset.train[:: max(1, len(dataset.train) // images)][:images]
        bar.step("Calibrating", 0.0)
        digest = quantise(model, [read_image(sample.image) for sample in chosen], made)
        metrics = [
            evaluate(predictor, dataset, on_progress=heard_by(bar, f"Measuring {name}"))
            for predictor, name in ((before, model.name), (OnnxPredictor(made), out.name))
        ]
        loss = explain_loss(*metrics, most=max_loss / 100, most_of_a_class=max_class_loss / 100)
        content = made.read_bytes()
        if not loss:
            out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(out, content)
    data_out = {
        "file": "" if loss else str(out), "digest": digest, "images": len(chosen), "bytes_before": model.stat().st_size,
        "bytes": len(content), "before": metrics[0].model_dump(mode="json"),
        "after": metrics[1].model_dump(mode="json"), "loss": loss,
    }  # fmt: skip
    sizes = f"{bytes_text(len(content))}, before {bytes_text(model.stat().st_size)}"
    named = {"file": "none" if loss else out, "size": sizes, "calibrated with": f"{len(chosen)} images"}
    emit(data_out, as_json, facts(named), _differences(*metrics))
    if loss:
        raise InvalidInput(f"{loss}: calibrate with more images of the site (--images), or say --max-loss")


def _differences(before: DetectionMetrics, after: DetectionMetrics) -> RenderableType:
    """For people: what has been lost, class by class."""
    shares = [
        ("all", before.map50_95, after.map50_95, ""),
        *(
            (name, found.ap50_95, after.per_class[name].ap50_95, found.boxes)
            for name, found in before.per_class.items()
        ),
    ]
    rows = [(name, percent(one), percent(two), f"{100 * (two - one):+.1f}", boxes) for name, one, two, boxes in shares]
    columns = ("AP50-95", "before", "8 bits", "difference", "boxes")
    return table(columns, rows, right=columns[1:])


@app.command("repair")
def repair(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A good copy."),
    ],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Upload a good copy of a file that was damaged or lost on the cloud's disk. For operators and admins."""
    from diredi.rpc.blobs import upload
    from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
    from diredi.store.blobs import Blob
    from diredi_cli.connection import with_cloud

    async def work(channel: Channel) -> Blob:
        with progress(as_json) as bar:
            step = f"Uploading {file.name}"
            return await upload(
                BlobServiceStub(channel), file, on_bytes=lambda done, total: bar.step(step, done / max(total, 1))
            )

    blob = with_cloud(cloud, identity, work)
    data = {"file": str(file), "bytes": blob.bytes, "digest": blob.digest}
    emit(data, as_json, facts({"file": file, "size": bytes_text(blob.bytes), "digest": blob.digest}))


def _get(cloud: str, identity: Path, model_id: str) -> Model:
    from diredi.rpc.v1.registry_pb2 import GetModelRequest, GetModelResponse
    from diredi.rpc.v1.registry_pb2_grpc import RegistryServiceStub
    from diredi_cli.connection import ask

    response: GetModelResponse = ask(
        cloud, identity, lambda channel: RegistryServiceStub(channel).GetModel, GetModelRequest(id=model_id)
    )
    return response.model


def short_id(digest: str) -> str:
    """Return the first 12 hex digits of a digest: enough to name a model, short enough for a table."""
    return digest.removeprefix("sha256:")[:12]


def kind_of(model: Model) -> str:
    """Return the kind of a model as people write it: `tutor`, not `MODEL_KIND_TUTOR`."""
    from diredi_cli.proto_json import short_name

    return short_name(model.DESCRIPTOR.fields_by_name["kind"].enum_type, model.kind).lower()
