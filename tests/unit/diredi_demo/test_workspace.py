import os
import subprocess
import sys
from pathlib import Path

import pytest

from diredi.errors import InvalidInput, WrongState
from diredi_demo.options import DemoConfig
from diredi_demo.workspace import Workspace


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(InvalidInput, match="no demo made it"):
        Workspace(tmp_path).prepare()
    assert (tmp_path / "thesis.txt").read_text() == "x"


def test_a_file_is_not_a_folder(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="is a file"):
        Workspace(tmp_path / "file").prepare()


def test_a_second_demo_replaces_the_first_but_for_the_scenes(tmp_path: Path):
    folder = Workspace(tmp_path / "out")
    folder.prepare()
    (folder.data).mkdir()
    (folder.data / "scene.jpg").touch()
    folder.state("cloud").mkdir()
    folder.report.touch()
    folder.prepare()
    assert (folder.data / "scene.jpg").exists()
    assert not folder.state("cloud").exists() and not folder.report.exists()


def test_a_demo_that_runs_is_not_replaced_and_can_be_stopped_from_elsewhere(tmp_path: Path):
    folder = Workspace(tmp_path / "out")
    folder.prepare()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        folder.record_processes({"cloud": process.pid})
        assert folder.running() == {"cloud": process.pid}
        with pytest.raises(WrongState, match="--stop"):
            folder.prepare()
        assert folder.stop_running() == ["cloud"]
        assert process.wait(60) != 0
    assert folder.running() == {}


def test_a_process_that_only_has_the_same_number_is_not_ours(tmp_path: Path):
    folder = Workspace(tmp_path / "out")
    folder.prepare()
    folder.record_processes({"cloud": os.getpid()})
    path = folder.root / "processes.json"
    path.write_text(path.read_text().replace('"began": "', '"began": "9'))
    assert folder.running() == {}


def test_everybody_but_the_cloud_gets_a_token_and_no_key(tmp_path: Path):
    from diredi.trust.enrolment import Token
    from diredi.trust.identity import Credentials

    folder = Workspace(tmp_path / "out")
    folder.prepare()
    folder.make_authority("test")
    folder.make_tokens("cloud:7070", "site-1", ["edge-1"])
    assert str(Credentials.load(folder.identity("cloud")).identity) == "cloud/cloud"
    tokens = [Token.decode(folder.token(name).read_text()) for name in ("site-1", "edge-1", "operator")]
    assert {(token.cloud, token.credentials.identity.role) for token in tokens} == {("cloud:7070", "enrolment")}
    assert not any(folder.identity(name).exists() for name in ("site-1", "edge-1", "operator"))


def test_tuning_names_the_file_and_the_field(tmp_path: Path):
    path = tmp_path / "tuning.yaml"
    path.write_text("clod: {}\n")
    with pytest.raises(InvalidInput, match=r"tuning\.yaml: clod.*allowed are"):
        DemoConfig.read(path)
    path.write_text("a: [\n")
    with pytest.raises(InvalidInput, match="is not YAML"):
        DemoConfig.read(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        DemoConfig.read(tmp_path / "none.yaml")
