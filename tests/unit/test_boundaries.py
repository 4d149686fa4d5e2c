"""Who knows whom (docs/architecture.md), held against the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("cloud_server", "user_domain", "edge_node", "peer_node")
APPLICATIONS = ("diredi_box", "diredi_cli", "diredi_demo", "diredi_scenes", "tests")


@cache
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


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_import_diredi_and_never_each_other(program: str) -> None:
    others = [other for other in (*PROGRAMS, *APPLICATIONS) if other != program]
    assert not {name: files for name, files in imported_by(program).items() if name.split(".")[0] in others}


@pytest.mark.parametrize("folder", ["diredi", "diredi_scenes"])
def test_the_library_and_the_scenes_import_no_program_and_no_application(folder: str) -> None:
    strangers = {*PROGRAMS, *APPLICATIONS} - {folder}
    assert not {name: files for name, files in imported_by(folder).items() if name.split(".")[0] in strangers}


def test_the_library_starts_no_program_by_name() -> None:
    words = {
        node.value
        for file in sorted((ROOT / "diredi").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not words & {*PROGRAMS, "diredi_cli", "diredi_demo"}


def test_only_the_rpc_folder_touches_grpc_in_the_core_library() -> None:
    users = imported_by("diredi")
    touching = {f for name, files in users.items() if name.split(".")[0].startswith("grpc") for f in files}
    assert not {file for file in touching if not file.startswith("diredi/rpc/")}


@pytest.mark.parametrize(("package", "file"), [("onnxruntime", "onnx_runtime"), ("openvino", "openvino")])
def test_one_file_loads_a_runtime_and_it_belongs_to_the_package_that_switches_its_telemetry_off(
    package: str, file: str
) -> None:
    folders = ("diredi", *PROGRAMS, *APPLICATIONS, "bench", "deploy")
    users = {user for folder in folders for user in imported_by(folder).get(package, ())}
    assert users == {f"diredi/detectors/runtimes/{file}.py"}


@pytest.mark.parametrize(("package", "files"), [("ultralytics", "ultralytics_"), ("libreyolo", "libreyolo_")])
def test_only_its_own_files_import_the_package_of_a_detector_family(package: str, files: str) -> None:
    users = imported_by("diredi")
    touching = {file for name, found in users.items() if name.split(".")[0] == package for file in found}
    assert not {file for file in touching if not file.startswith(f"diredi/detectors/{files}")}


@pytest.mark.parametrize(
    "module",
    ["cloud_server.__main__", "user_domain.__main__", "edge_node.__main__", "peer_node.node", "diredi_cli.main"],
)
def test_servers_and_command_line_start_without_torch(module: str) -> None:
    program = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
