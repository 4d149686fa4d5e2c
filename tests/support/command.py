"""Commands run in this process, beside whatever logs to its output meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from diredi_cli.main import run


async def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any, str]:
    """Run `diredi ARGUMENTS --json`; return its exit code, its JSON (None where it prints none) and its error."""
    capsys.readouterr()
    code = await asyncio.to_thread(run, [*map(str, arguments), "--json"])
    out, error = capsys.readouterr()
    text = "\n".join(line for line in out.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line))
    return code, json.loads(text) if text.strip() else None, error
