from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from diredi.errors import DirediError, InvalidInput
from diredi.jobs import Heard, LocalExecutor
from diredi.progress import Progress

HEAD = """
import os, threading
from pydantic import BaseModel
from diredi.errors import InvalidInput
from diredi.progress import Progress
from diredi.store.blobs import digest_of
from pathlib import Path
class File(BaseModel):
    path: Path
    digest: str
class Spec(BaseModel):
    numbers: list[int] = []
    diary: str = ""
    halts: bool = False
class Result(BaseModel):
    sum: int = 0
    steps: bool = False
    made: list[File] = []
"""
JOBS = {
    "counting": """
        def main(spec: Spec, folder, on_progress) -> Result:
            with open(spec.diary, "a") as diary: diary.write("ran ")
            print("a library talks on standard output")
            on_progress(Progress("count", 0.5, "half way"))
            return Result(sum=sum(spec.numbers))
    """,
    "writing": """
        def main(spec: Spec, folder, on_progress) -> Result:
            with open(spec.diary, "a") as diary: diary.write("ran ")
            (folder / "weights").write_bytes(b"weights")
            return Result(made=[{"path": folder / "weights", "digest": digest_of(b"weights")}])
    """,
    "refusing": """
        def main(spec: Spec, folder, on_progress) -> Result:
            raise InvalidInput("the numbers are wrong: give others")
    """,
    "dying": """
        def main(spec: Spec, folder, on_progress) -> Result:
            os._exit(9)
    """,
    "halting": """
        def main(spec: Spec, folder, on_progress) -> Result:
            if spec.halts:
                with open(folder / "steps", "a") as steps: steps.write("step ")
            if (folder / "steps").exists() and len((folder / "steps").read_text().split()) < 2:
                os._exit(9)
            return Result(steps=(folder / "steps").exists())
    """,
    "endless": """
        def main(spec: Spec, folder, on_progress) -> Result:
            on_progress(Progress("wait", 0.0, str(os.getpid())))
            threading.Event().wait()
    """,
}


@pytest.fixture(autouse=True)
def _job_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import textwrap

    for name, text in JOBS.items():
        (tmp_path / f"{name}_job.py").write_text(HEAD + textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))


class Spec(BaseModel):
    """What the jobs above are told."""

    numbers: list[int] = []
    diary: str = ""
    halts: bool = False


class File(BaseModel):
    """A file that one of them makes."""

    path: Path
    digest: str


class Result(BaseModel):
    """What they answer."""

    sum: int = 0
    steps: bool = False
    made: list[File] = []


async def run(name: str, folder: Path, spec: Spec | None = None, on_progress: Heard | None = None) -> Result:
    return await LocalExecutor().run(f"{name}_job", spec or Spec(), Result, folder, on_progress or _ignore)


async def test_a_job_reports_and_its_result_is_not_worked_out_twice(tmp_path: Path) -> None:
    seen: list[Progress] = []

    async def remember(progress: Progress) -> None:
        seen.append(progress)

    diary = tmp_path / "diary"
    spec = Spec(numbers=[1, 2], diary=str(diary))
    for _ in range(2):
        assert (await run("counting", tmp_path / "job", spec, remember)).sum == 3
    assert seen == [Progress("count", 0.5, "half way")]
    assert diary.read_text() == "ran "

    other = Spec(numbers=[5], diary=str(diary))
    assert (await run("counting", tmp_path / "job", other, remember)).sum == 5


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.parametrize("damage", [b"", b'{"sum": ', b"\xff\x00", b"[]", b"null", b'{"sum": "three"}'])
async def test_a_damaged_result_is_set_aside_and_the_job_runs_again(tmp_path: Path, damage: bytes) -> None:
    spec = Spec(numbers=[1, 2], diary=str(tmp_path / "diary"))
    await run("counting", tmp_path / "job", spec)
    (tmp_path / "job" / "result.json").write_bytes(damage)
    for _ in range(2):
        assert (await run("counting", tmp_path / "job", spec)).sum == 3
    assert (tmp_path / "diary").read_text() == "ran ran "
    assert (tmp_path / "job" / "result.json.damaged-1").read_bytes() == damage


async def test_an_error_of_a_job_arrives_as_itself(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the numbers are wrong: give others"):
        await run("refusing", tmp_path / "job")


async def test_a_job_that_dies_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(DirediError, match=r"dying_job ended with 9.*log"):
        await run("dying", tmp_path / "job")


async def test_a_job_that_died_finds_what_it_had_made_and_another_spec_finds_nothing(tmp_path: Path) -> None:
    with pytest.raises(DirediError):
        await run("halting", tmp_path / "job", Spec(halts=True))
    assert (await run("halting", tmp_path / "job", Spec(halts=True))).steps
    assert not (await run("halting", tmp_path / "job", Spec(halts=False))).steps


async def test_a_cancelled_job_is_not_left_running(tmp_path: Path) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def note_process(progress: Progress) -> None:
        started.set_result(int(progress.message))

    job = asyncio.create_task(run("endless", tmp_path / "job", on_progress=note_process))
    process = await started
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def _ignore(progress: Progress) -> None:
    del progress


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.parametrize("damage", ["gone", "empty", "another"])
async def test_a_job_whose_file_was_damaged_since_runs_again(tmp_path: Path, damage: str) -> None:
    spec, folder = Spec(diary=str(tmp_path / "diary")), tmp_path / "job"
    for _ in range(2):
        (made,) = (await run("writing", folder, spec)).made
    assert (tmp_path / "diary").read_text() == "ran "
    if damage == "gone":
        made.path.unlink()
    else:
        made.path.write_bytes(b"" if damage == "empty" else b"weightz")
    (made,) = (await run("writing", folder, spec)).made
    assert made.path.read_bytes() == b"weights"
    assert (tmp_path / "diary").read_text() == "ran ran "
