from __future__ import annotations

import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from diredi.errors import InvalidInput, NoRoom
from diredi.store.files import atomic_write, make_folder, publish, read_state

ROOT = Path(__file__).parents[3]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """The operating system lets no file of this process grow larger, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_replaces_what_was_there_and_leaves_nothing_else(tmp_path: Path, durable: bool) -> None:
    for data in (b"one", "zwölf", b""):
        atomic_write(tmp_path / "a.json", data, durable=durable)
        assert (tmp_path / "a.json").read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_without_room_the_old_file_stays_whole_and_no_half_one_is_left(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.json", "old")
    with room_for(1000), pytest.raises(NoRoom, match=r"a\.json.*free some"):
        atomic_write(tmp_path / "a.json", bytes(2000))
    assert (tmp_path / "a.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_what_a_killed_process_left_half_written_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "a.json.part").symlink_to(tmp_path / "elsewhere")
    atomic_write(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert (tmp_path / "elsewhere").read_text() == "kept"


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    atomic_write(tmp_path / "key.pem", b"secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what is asked of the operating system")
def test_a_durable_write_is_on_disk_before_its_name_is_and_its_name_before_it_returns(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from diredi.store.files import atomic_write, make_folder\n"
        "make_folder(Path(sys.argv[1]) / 'x' / 'y'); atomic_write(Path(sys.argv[1]) / 'x' / 'y' / 'a.json', b'1')"
    )
    trace = tmp_path / "trace"
    calls = "trace=fsync,rename,renameat,renameat2,mkdir"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(trace), sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=True)
    seen = re.findall(rf"(mkdir|fsync|rename)[^\n]*?{re.escape(str(tmp_path))}(/[^>\"]*|)", trace.read_text())
    assert seen == [
        ("mkdir", "/x/y"), ("mkdir", "/x"), ("mkdir", "/x/y"), ("fsync", ""), ("fsync", "/x"),
        ("fsync", "/x/y/a.json.part"), ("rename", "/x/y/a.json.part"), ("fsync", "/x/y"),
    ]  # fmt: skip


def test_a_finished_file_takes_its_name(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "part").write_text("whole")
    publish(tmp_path / "part", tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").read_text() == "whole"
    assert not (tmp_path / "part").exists()


def count_in(data: bytes) -> int:
    return int(json.loads(data)["count"])


DAMAGED = [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"count": 1e999}', b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_state_file_is_as_good_as_absent_and_kept_beside_its_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    for number in (1, 2):
        path.write_bytes(content)
        assert read_state(path, count_in) is None
        assert not path.exists()
        assert (tmp_path / f"state.json.damaged-{number}").read_bytes() == content
    assert read_state(path, count_in) is None
    path.write_text('{"count": 3}')
    assert read_state(path, count_in) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_state_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"count": 3}')
    path.chmod(0)
    with pytest.raises(InvalidInput, match="owner"):
        read_state(path, count_in)
    assert path.exists()
