"""Sets up the Python environment that everything runs in; with the standard library alone, for machine and image alike.

    python3 deploy/setup.py                        .venv with all that the project and its tests need
    python3 deploy/setup.py --groups core --venv DIR --no-project     what an edge node needs, elsewhere
    python3 deploy/setup.py --download wheelhouse  the wheels that the images need, for a build without a network

Versions are those of constraints.txt, groups those of pyproject.toml. A second run finds its stamp and does nothing.

torch is the one package that needs thought: the wheel on the public index carries gigabytes of CUDA. A machine with an
NVIDIA GPU gets that one; every other gets the CPU build (`+cpu`), from the places that pip is configured for when one
of them has it, else from the PyTorch project's own index. TORCH=cpu or TORCH=cuda decides by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
if sys.version_info < (3, 11):  # noqa: UP036 - an older Python must be told in a sentence
    sys.exit(f"setup: Python 3.11 or newer is needed and {sys.executable} is {PYTHON}: set PYTHON to a newer one")

import tomllib  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
PYPROJECT = ROOT / "pyproject.toml"
IMAGE_PYTHON = "3.11"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NO_DEPS = ("ultralytics", "libreyolo", "openvino")
"""Groups that are installed without their dependencies: an OpenCV that fights with the headless one, and telemetry."""
EXTRAS = ("pandas", "supervision", "dev", "docs")
NOT_IN_IMAGES = (*EXTRAS, "openvino")
ALL_GROUPS = ("core", "video", "outputs", "pages", "learning", "peers", "ray", "cloud", *NO_DEPS, *EXTRAS)
TORCH_CHOICES = ("auto", "cpu", "cuda")
NEEDED_GIB = {"core": 1, "learning": 3}


class SetupError(Exception):
    """One sentence for the user: what is missing and what to do."""


def main() -> int:
    """0: ready; 1: not, and why is on standard error."""
    arguments = _arguments()
    groups = arguments.groups.split(",")
    try:
        setup(arguments.venv, groups, project=not arguments.no_project)
        if arguments.download is not None:
            download(Pip(arguments.venv), [group for group in groups if group not in NOT_IN_IMAGES], arguments.download)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


def setup(venv: Path, groups: list[str], project: bool) -> None:
    """Makes `venv` hold `groups` (and this checkout, if `project`)."""
    unknown = sorted(set(groups) - set(ALL_GROUPS))
    if unknown:
        raise SetupError(f"no group {unknown[0]}: there are {', '.join(ALL_GROUPS)}")
    stamp = venv / ".setup-stamp"
    have = stamp.read_text().split() if stamp.exists() else []
    key = _key(venv)
    if have[:1] == [key] and set(groups) <= set(have[1:]):
        return
    groups = sorted(set(groups) | set(have[1:]))  # an environment never loses a group by being set up for less
    started = time.monotonic()
    _check_machine(venv, groups)
    _make_venv(venv)
    pip = Pip(venv)
    _install(pip, groups, project)
    stamp.write_text(" ".join([key, *groups]) + "\n")
    say(f"ready in {time.monotonic() - started:.0f} s: {venv}")


def download(pip: Pip, groups: list[str], folder: Path) -> None:
    """Every wheel of `groups` into `folder`, as the images of deploy/Dockerfile want them."""
    say(f"downloading {', '.join(groups)} to {folder}")
    for packages in _packages(pip, groups):
        pip.run("download", "--only-binary=:all:", f"--python-version={IMAGE_PYTHON}", f"--dest={folder}", *packages)


def _install(pip: Pip, groups: list[str], project: bool) -> None:
    say(f"installing {', '.join(groups)}; minutes on a slow line")
    # Python compiles a module when it is first imported. To compile all of them at once takes longer than the rest of
    # set-up, and serves only an image, whose files are never written again.
    options = ["--no-compile"] if project else []
    for packages in _packages(pip, groups):
        pip.run("install", *options, *packages)
    if project:
        pip.run("install", *options, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def _packages(pip: Pip, groups: list[str]) -> Iterator[list[str]]:
    """What to ask pip for, in one call after the other: options and requirements."""
    pinned = constraints()
    wanted = [f"setuptools=={pinned['setuptools']}"]
    for group in groups:
        wanted += requirements(group) if group not in NO_DEPS else []
    if "learning" in groups:
        wanted += torch_requirement(pip, pinned["torch"])
    yield ["-c", str(CONSTRAINTS), *wanted]
    bare = [requirement for group in NO_DEPS if group in groups for requirement in requirements(group)]
    if bare:
        yield ["--no-deps", "-c", str(CONSTRAINTS), *bare]


def requirements(group: str) -> list[str]:
    """The packages of a group of pyproject.toml; "core" is the package's own dependencies."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    return list(project["dependencies"] if group == "core" else project["optional-dependencies"][group])


def constraints() -> dict[str, str]:
    """Package name to pinned version."""
    lines = (line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines if line)}


def torch_requirement(pip: Pip, version: str) -> list[str]:
    """The torch to ask pip for, and the options that it needs to find it."""
    choice = os.environ.get("TORCH", "auto")
    if sys.platform != "linux":
        return [f"torch=={version}"]  # the public wheel is the CPU one there
    if choice == "cuda" or (choice == "auto" and _has_nvidia_gpu()):
        return [f"torch==={version}"]  # "===": never the +cpu build that a configured place may offer
    wanted = f"torch=={version}+cpu"
    if pip.can_find(wanted):
        return [wanted]
    if _reachable(f"{TORCH_CPU_INDEX}/torch/"):
        return [wanted, "--extra-index-url", TORCH_CPU_INDEX]
    raise SetupError(
        f"the CPU build of torch {version} for Python {PYTHON} is in none of pip's configured places, and "
        f"{TORCH_CPU_INDEX} does not answer: set PIP_FIND_LINKS to a folder that has its wheel, use another Python "
        f"(PYTHON=python3.11), or set TORCH=cuda to take the public build of several GB"
    )


class Pip:
    """The pip of a virtual environment; what it says goes to a log, and to a terminal as one moving line."""

    def __init__(self, venv: Path) -> None:
        self.python = _python(venv)
        self.log = venv / "setup.log"

    def run(self, *arguments: str) -> None:
        """Raises SetupError that ends with pip's own last words."""
        if self._exit_code(*arguments):
            tail = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()][-8:]
            raise SetupError("pip did not succeed (all of it: {}):\n    {}".format(self.log, "\n    ".join(tail)))

    def can_find(self, requirement: str) -> bool:
        """Whether pip's configured places have it; nothing is installed."""
        with self.log.open("a") as log:
            command = [self.python, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", requirement]
            return subprocess.run(command, stdout=log, stderr=log, env=_environment(), check=False).returncode == 0

    def _exit_code(self, *arguments: str) -> int:
        command = [self.python, "-m", "pip", *arguments]
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
            )
            assert process.stdout is not None
            _show(process.stdout, log.write)
            return process.wait()


def _show(lines: Iterable[str], write: Callable[[str], object]) -> None:
    """Copies `lines` to `write`, and to a terminal as one line that moves."""
    terminal = sys.stderr.isatty()
    width = shutil.get_terminal_size().columns - 2
    for line in lines:
        write(line)
        if terminal and not line.startswith("WARNING"):
            print(f"\r  {line.strip()[:width]:<{width}}", end="", file=sys.stderr, flush=True)
    if terminal:
        print(f"\r{'':<{width + 2}}\r", end="", file=sys.stderr, flush=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


def _check_machine(venv: Path, groups: list[str]) -> None:
    if os.environ.get("TORCH", "auto") not in TORCH_CHOICES:
        raise SetupError(f"TORCH={os.environ['TORCH']} is none of {', '.join(TORCH_CHOICES)}")
    if find_spec("ensurepip") is None or find_spec("venv") is None:
        raise SetupError(f"Python {PYTHON} cannot make virtual environments here: apt-get install python{PYTHON}-venv")
    needed = max(NEEDED_GIB.get(group, 0) for group in groups)
    venv.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(venv.parent).free / 2**30
    if free < needed and not venv.exists():
        raise SetupError(f"{free:.1f} GiB are free at {venv.parent} and about {needed} are needed: make room")


def _make_venv(venv: Path) -> None:
    """A new environment, unless the one that is there is of this Python and in its own place."""
    version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]} or sys.prefix != {str(venv)!r})"
    if _python_runs(venv, version):
        return
    say(f"making {venv} with Python {sys.version.split()[0]}")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise SetupError(f"no virtual environment could be made at {venv}: {(made.stdout + made.stderr).strip()}")


def _python_runs(venv: Path, code: str) -> bool:
    python = _python(venv)
    return Path(python).exists() and subprocess.run([python, "-c", code], check=False).returncode == 0


def _python(venv: Path) -> str:
    return str(venv / "bin" / "python")


def _key(venv: Path) -> str:
    """Changes whenever the environment must be looked at again."""
    parts = [CONSTRAINTS.read_bytes(), PYPROJECT.read_bytes(), Path(__file__).read_bytes()]
    parts += [part.encode() for part in (str(venv), sys.version, os.environ.get("TORCH", ""))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _has_nvidia_gpu() -> bool:
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=8):
            return True
    except (urllib.error.URLError, OSError):
        return False


def say(message: str) -> None:
    """One line on standard error, where it mixes with no program's output."""
    print(f"setup: {message}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--venv", type=lambda text: Path(text).absolute(), default=ROOT / ".venv")
    parser.add_argument("--groups", default=",".join(ALL_GROUPS), help=f"of {', '.join(ALL_GROUPS)}")
    parser.add_argument("--no-project", action="store_true", help="leave this checkout itself out")
    parser.add_argument(
        "--download", type=Path, metavar="FOLDER", help="also put the wheels that the images need there"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
