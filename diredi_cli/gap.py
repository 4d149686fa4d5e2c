"""`diredi gap`: what is in an encoded knowledge gap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diredi.text import bytes_text
from diredi_cli.options import AsJson
from diredi_cli.output import emit, facts, table

if TYPE_CHECKING:
    from diredi.store.weights import WeightMap

app = typer.Typer(help="Look into a knowledge gap.", no_args_is_help=True)


@app.command("inspect")
def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="An encoded gap, as it travels.")],
    keys: Annotated[int, typer.Option("--keys", min=0, help="How many of the largest changes to list.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show codec, size and where the knowledge lies. Reads weights only: a gap holds nothing else."""
    from diredi.codecs import codec_named, read_header

    data = path.read_bytes()
    header = read_header(data)
    weights = codec_named(header.codec).decode(data)
    weights.check_finite()
    norms = _norms(weights)
    found: dict[str, Any] = {
        "file": str(path),
        "codec": header.codec,
        "bytes": len(data),
        "fp32_bytes": weights.fp32_bytes,
        "arrays": len(weights),
        "schema_digest": weights.schema_digest(),
        "norm": weights.norm(),
        "metadata": header.metadata,
        "largest": [{"name": name, "shape": list(weights[name].shape), "norm": norm} for name, norm in norms[:keys]],
    }
    shown = {
        "codec": header.codec,
        "size": f"{bytes_text(len(data))}, {100 * len(data) / max(weights.fp32_bytes, 1):.1f} % of fp32",
        "arrays": len(weights),
        "norm": f"{weights.norm():.4g}",
        "schema": weights.schema_digest(),
        **header.metadata,
    }
    rows = [(name, "x".join(map(str, weights[name].shape)), f"{norm:.4g}") for name, norm in norms[:keys]]
    emit(found, as_json, facts(shown), table(("largest changes", "shape", "norm"), rows, right=("shape", "norm")))


def _norms(weights: WeightMap) -> list[tuple[str, float]]:
    """Each array with its norm, largest first."""
    from diredi.store.weights import WeightMap

    norms = [(name, WeightMap({name: weights[name]}).norm()) for name in weights]
    return sorted(norms, key=lambda item: -item[1])
