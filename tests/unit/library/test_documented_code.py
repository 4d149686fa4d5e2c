"""The Python of the README and of the tutorial is run as it stands there, on small data and with short trainings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import diredi
from tests.unit.knowledge.shapes import GROWN, KNOWN, SIZE, TINY, write_shapes

ROOT = Path(__file__).resolve().parents[3]
QUICK = '{"steps": 2, "batch": 4}'
SHORT = f'recipe={{"form": "weights", "tutor": {QUICK}, "student": {QUICK}, "max_harm": 1.0}}'
REPLACED = {
    '"yolo11s.pt"': '"models/tutor.safetensors"',
    '"yolo11n.pt"': '"models/student.safetensors"',
    "coreset=maker.sample(200))": f"coreset=maker.sample(8), {SHORT})",
    "guard=maker)": f"guard=maker, {SHORT})",
    "data=maker)": 'data=maker, recipe={"steps": 2, "batch": 4})',
}
"""What takes long or must be downloaded, and the documented arguments in its place."""


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/library.md"])
def test_the_python_of_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "maker", KNOWN.names, 16, 8, seed=0)
    write_shapes(tmp_path / "site", GROWN.names, 12, 8, seed=1, light=0.5)
    for seed, name in enumerate(("tutor", "student")):
        diredi.create(TINY, SIZE, KNOWN, seed, "cpu").save(tmp_path / "models" / f"{name}.safetensors")

    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S))
    for long, short in REPLACED.items():
        code = code.replace(long, short)
    exec(compile(code, page, "exec"), {})

    assert diredi.OnnxPredictor("student.onnx").spec.labels.names == GROWN.names
