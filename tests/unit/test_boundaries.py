"""Who knows whom (docs/architecture.md), held against the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("cloud_server", "user_domain", "edge_node")


def imported_by(folder: str) -> dict[str, set[str]]:
    """Module name to the files under `folder` that import it."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_services_import_diredi_and_never_each_other(service: str) -> None:
    others = [other for other in (*SERVICES, "tests") if other != service]
    assert not {name: files for name, files in imported_by(service).items() if name.split(".")[0] in others}


def test_diredi_imports_no_service() -> None:
    strangers = (*SERVICES, "tests")
    assert not {name: files for name, files in imported_by("diredi").items() if name.split(".")[0] in strangers}


def test_only_the_rpc_folder_touches_grpc_in_the_core_library() -> None:
    users = imported_by("diredi")
    touching = {f for name, files in users.items() if name.split(".")[0].startswith("grpc") for f in files}
    assert not {file for file in touching if not file.startswith("diredi/rpc/")}


@pytest.mark.parametrize(("package", "files"), [("ultralytics", "ultralytics_"), ("libreyolo", "libreyolo_")])
def test_only_its_own_files_import_the_package_of_a_detector_family(package: str, files: str) -> None:
    users = imported_by("diredi")
    touching = {file for name, found in users.items() if name.split(".")[0] == package for file in found}
    assert not {file for file in touching if not file.startswith(f"diredi/detectors/{files}")}


@pytest.mark.parametrize(
    "module",
    ["cloud_server.__main__", "user_domain.__main__", "edge_node.__main__", "edge_node.peers.run", "diredi.cli.main"],
)
def test_servers_and_command_line_start_without_torch(module: str) -> None:
    program = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
