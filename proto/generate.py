"""Turns the contract in `proto/` into the stubs in `diredi/rpc/v1/`: run `python proto/generate.py` after a change.

The stubs are committed, so that nobody needs a compiler to install the package; a test proves that they are current.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

PROTO = Path(__file__).resolve().parent
STUBS = PROTO.parent / "diredi" / "rpc" / "v1"


def generate(out: Path) -> list[Path]:
    """Writes the stubs of every contract file into `out`; returns them, sorted."""
    from grpc_tools import protoc

    contracts = sorted(PROTO.glob("diredi/v1/*.proto"))
    beside_python = Path(sys.executable).parent  # where a virtual environment that is not activated has its programs
    with tempfile.TemporaryDirectory() as raw:
        arguments = [
            "protoc",
            *(f"--plugin={name}={beside_python / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            f"--proto_path={PROTO}",
            f"--proto_path={resources.files('grpc_tools') / '_proto'}",
            *(f"--{plugin}_out={raw}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *(str(contract) for contract in contracts),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("the contract does not compile: see the lines above")
        out.mkdir(parents=True, exist_ok=True)
        made = sorted(Path(raw, "diredi", "v1").iterdir())
        return [_moved(stub, out) for stub in made if _says_something(stub)]


def _says_something(stub: Path) -> bool:
    """Whether it is not the empty service stub of a contract file without services."""
    return "_pb2_grpc" not in stub.name or re.search(r"class \w+Servicer\b", stub.read_text()) is not None


def _moved(stub: Path, out: Path) -> Path:
    """The stub in `out`, with imports of the package that it lives in rather than of the proto package."""
    target = out / stub.name
    target.write_text(re.sub(r"^from diredi\.v1 import", "from diredi.rpc.v1 import", stub.read_text(), flags=re.M))
    return target


if __name__ == "__main__":
    for written in generate(STUBS):
        sys.stdout.write(f"{written.relative_to(PROTO.parent)}\n")
