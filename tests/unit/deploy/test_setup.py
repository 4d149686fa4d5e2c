"""What set-up promises before it asks any index: pins for everything, and one sentence for whatever is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import setup

ROOT = Path(__file__).parents[3]
SETUP = ROOT / "deploy/setup.py"


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower()


@pytest.mark.parametrize("group", setup.ALL_GROUPS)
def test_every_dependency_of_a_group_has_its_pin(group: str) -> None:
    unpinned = {name_of(r) for r in setup.requirements(group)} - set(setup.constraints())
    assert not unpinned


def test_every_pin_names_one_version() -> None:
    loose = {
        name: version for name, version in setup.constraints().items() if not re.fullmatch(r"[0-9][\w.+!]*", version)
    }
    assert not loose


def test_the_edge_needs_no_torch_and_no_database() -> None:
    core = {name_of(r) for r in setup.requirements("core")}
    assert not core & {"torch", "torchvision", "ultralytics", "libreyolo", "sqlalchemy", "matplotlib"}


def test_a_gpu_machine_is_never_given_the_cpu_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH", "cuda")
    if sys.platform == "linux":
        assert setup.torch_requirement(setup.Pip(tmp_path), "2.13.0") == ["torch===2.13.0"]


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--groups", "core,telepathy"], {}, f"no group telepathy: there are {', '.join(setup.ALL_GROUPS)}"),
        (["--groups", "learning"], {"TORCH": "gpu"}, "TORCH=gpu is none of auto, cpu, cuda"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    done = run_setup(["--venv", str(tmp_path / "v"), "--no-project", *arguments], environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"setup: {said}"


def test_a_python_without_venv_is_told_which_package_to_install(tmp_path: Path) -> None:
    hidden = "import sys, runpy; sys.modules['ensurepip'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], "
    command = [sys.executable, "-c", hidden + "run_name='__main__')", str(SETUP), "--venv", str(tmp_path / "v")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"apt-get install python{setup.PYTHON}-venv")


def run_setup(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy/setup.py"), *arguments]
    return subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=False
    )


def test_make_alone_explains_every_target() -> None:
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    public = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "up", "down", "logs", "clean"} <= set(public)
    assert not [target for target in public if f"make {target} " not in said]
