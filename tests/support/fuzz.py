"""Asks every address of a service's pages for what nobody would ask, by its own OpenAPI document."""

from __future__ import annotations

import json
import random
from typing import Any
from urllib.parse import quote

from tests.support.visitor import Visitor

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**70, -(2**70), 0.5, 1e308, "", "a", "all", "0", "-1", "1e999", "ä\u202e\u0000", "a" * 3000,
    "../../etc/passwd", "<img src=x>", "2026-13-01", "NaN", [], [[]], [None], ["a", 1], {}, {"a": {"b": []}},
)  # fmt: skip
ALLOWED = {200, 303, 400, 401, 403, 404, 405, 409, 413, 422, 429, 503, 507}


async def ask_nonsense(visitor: Visitor, requests: int, seed: int) -> tuple[int, list[str]]:
    """Send requests that fit the document or not.

    Returns:
        How many operations were asked, and what was answered as it must not be: a defect of the service, a status that
        is not one of ours, or an error that is no JSON with a reason.
    """
    choose = random.Random(seed)
    paths = json.loads((await visitor.ask("/openapi.json"))[2])["paths"]
    operations = [
        (method, path, operation)
        for path, methods in sorted(paths.items()) for method, operation in sorted(methods.items())
        if "/events" not in path  # streams that do not end
    ]  # fmt: skip
    wrong = []
    for number in range(requests):
        method, path, operation = operations[number % len(operations)]
        query = []
        for parameter in operation.get("parameters", ()):
            value = choose.choice([*VALUES, *parameter.get("schema", {}).get("enum", ())])
            text = quote(value if isinstance(value, str) else json.dumps(value), safe="", errors="replace")
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", text or "a")
            elif choose.random() < 0.7:
                query.append(f"{parameter['name']}={text}")
        target = path + ("?" + "&".join(query) if query else "")
        body = _body(operation, choose) if method == "post" else None
        status, headers, answer = await visitor.ask(target, body)
        if status not in ALLOWED or (status >= 400 and not _has_reason(headers, answer)):
            wrong.append(f"{method} {target[:200]} {str(body)[:200]}: {status} {answer[:200]!r}")
    return len(operations), wrong


def _body(operation: dict[str, Any], choose: random.Random) -> Any:
    content = operation.get("requestBody", {}).get("content", {})
    if "application/zip" in content:
        return choose.choice((b"", b"PK\x03\x04", b"[]", b"{}", b"<a>", b"\x00" * 100))
    if choose.random() < 0.1:
        return choose.choice(VALUES)
    schema = content.get("application/json", {}).get("schema", {})
    fields = schema.get("properties", {"a": {}})
    return {
        name: choose.choice([*VALUES, *field.get("enum", ())])
        for name, field in fields.items()
        if choose.random() < 0.8
    }


def _has_reason(headers: dict[str, str], answer: bytes) -> bool:
    if not headers.get("content-type", "").startswith("application/json"):
        return False
    return bool(json.loads(answer).get("error"))
