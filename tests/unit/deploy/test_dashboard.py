"""Dashboard and alarms ask for figures that there are, in a language that Prometheus understands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus import documented

DEPLOY = Path(__file__).parents[3] / "deploy"
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def expressions() -> list[str]:
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]
    asked: list[Any] = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    alarms = yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    assert len(asked) > 20 and len(alarms) > 5
    return [*asked, *(rule["expr"] for rule in alarms)]


def test_every_figure_that_is_asked_for_is_one_that_a_service_tells() -> None:
    names = {name for expression in expressions() for name in re.findall(r"diredi_\w+", expression)}
    told = documented("diredi_")
    assert {SUFFIXES.sub("", name) for name in names} <= told, "the services' tests hold these to what is told"
    assert {name.split("_")[1] for name in names} == {"cloud", "site", "edge"}


def test_prometheus_understands_its_configuration_the_alarms_and_the_dashboard(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    rules = [{"record": f"panel_{number}", "expr": expression} for number, expression in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    for command in (["rules", str(tmp_path / "panels.yml")], ["config", str(DEPLOY / "prometheus.yml")]):
        checked = subprocess.run([promtool, "check", *command], capture_output=True, check=False, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
