import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
STUBS = REPOSITORY / "diredi" / "rpc" / "v1"


def test_committed_stubs_are_what_the_contract_generates(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed: it belongs to the dev group")
    generate = _generator().generate

    generated = {path.name: path.read_text() for path in generate(tmp_path)}

    committed = {path.name: path.read_text() for path in STUBS.glob("*_pb2*")}
    assert sorted(generated) == sorted(committed)
    stale = [name for name, text in generated.items() if committed[name] != text]
    assert not stale, f"run `python proto/generate.py`: {stale} are not what proto/ says"


def _generator():
    spec = importlib.util.spec_from_file_location("proto_generate", REPOSITORY / "proto" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
