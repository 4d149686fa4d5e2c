#!/usr/bin/env bash
# Every check that needs no test: style, types.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=()
check() { echo "lint: $1"; shift; "$@" || failed+=("$1"); }
check "ruff check" .venv/bin/ruff check .
check "ruff format" .venv/bin/ruff format --check --quiet .
check "mypy" .venv/bin/mypy
if [ ${#failed[@]} -gt 0 ]; then echo "lint: FAILED"; exit 1; fi
echo "lint: clean"
