from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from diredi.errors import DirediError, InvalidInput
from diredi.jobs import JobProgress, LocalExecutor

JOBS = {
    "counting": """
        import os
        def main(spec, folder, report):
            with open(spec["diary"], "a") as diary: diary.write("ran ")
            print("a library talks on standard output")
            report("count", 0.5, "half way")
            return {"sum": sum(spec["numbers"])}
    """,
    "refusing": """
        from diredi.errors import InvalidInput
        def main(spec, folder, report):
            raise InvalidInput("the numbers are wrong: give others")
    """,
    "dying": """
        import os
        def main(spec, folder, report):
            os._exit(9)
    """,
    "halting": """
        import os
        def main(spec, folder, report):
            if spec["halts"]:
                with open(folder / "steps", "a") as steps: steps.write("step ")
            if (folder / "steps").exists() and len((folder / "steps").read_text().split()) < 2:
                os._exit(9)
            return {"steps": (folder / "steps").exists()}
    """,
    "endless": """
        import os, threading
        def main(spec, folder, report):
            report("wait", 0.0, str(os.getpid()))
            threading.Event().wait()
    """,
}


@pytest.fixture(autouse=True)
def _job_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import textwrap

    for name, text in JOBS.items():
        (tmp_path / f"{name}_job.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))


async def test_a_job_reports_and_its_result_is_not_worked_out_twice(tmp_path: Path) -> None:
    seen: list[JobProgress] = []

    async def remember(progress: JobProgress) -> None:
        seen.append(progress)

    diary = tmp_path / "diary"
    spec = {"numbers": [1, 2], "diary": str(diary)}
    for _ in range(2):
        assert await LocalExecutor().run("counting_job", spec, tmp_path / "job", remember) == {"sum": 3}
    assert seen == [JobProgress("count", 0.5, "half way")]
    assert diary.read_text() == "ran "

    spec["numbers"] = [5]
    assert await LocalExecutor().run("counting_job", spec, tmp_path / "job", remember) == {"sum": 5}


@pytest.mark.parametrize("damage", [b"", b'{"sum": ', b"\xff\x00", b"[]", b"null"])
async def test_a_damaged_result_is_set_aside_and_the_job_runs_again(tmp_path: Path, damage: bytes) -> None:
    spec = {"numbers": [1, 2], "diary": str(tmp_path / "diary")}
    await LocalExecutor().run("counting_job", spec, tmp_path / "job", _ignore)
    (tmp_path / "job" / "result.json").write_bytes(damage)
    for _ in range(2):
        assert await LocalExecutor().run("counting_job", spec, tmp_path / "job", _ignore) == {"sum": 3}
    assert (tmp_path / "diary").read_text() == "ran ran "
    assert (tmp_path / "job" / "result.json.damaged-1").read_bytes() == damage


async def test_an_error_of_a_job_arrives_as_itself(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the numbers are wrong: give others"):
        await LocalExecutor().run("refusing_job", {}, tmp_path / "job", _ignore)


async def test_a_job_that_dies_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(DirediError, match=r"dying_job ended with 9.*log"):
        await LocalExecutor().run("dying_job", {}, tmp_path / "job", _ignore)


async def test_a_job_that_died_finds_what_it_had_made_and_another_spec_finds_nothing(tmp_path: Path) -> None:
    with pytest.raises(DirediError):
        await LocalExecutor().run("halting_job", {"halts": True}, tmp_path / "job", _ignore)
    assert await LocalExecutor().run("halting_job", {"halts": True}, tmp_path / "job", _ignore) == {"steps": True}
    assert await LocalExecutor().run("halting_job", {"halts": False}, tmp_path / "job", _ignore) == {"steps": False}


async def test_a_cancelled_job_is_not_left_running(tmp_path: Path) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def note_process(progress: JobProgress) -> None:
        started.set_result(int(progress.message))

    job = asyncio.create_task(LocalExecutor().run("endless_job", {}, tmp_path / "job", note_process))
    process = await started
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def _ignore(progress: JobProgress) -> None:
    del progress
