#!/usr/bin/env bash
# All checks, then all tests. pytest's own summary is the last thing printed, unless the checks before it failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deploy/lint.sh; lint=$?
.venv/bin/python -m pytest "$@"; tests=$?
if [ "$lint" != 0 ]; then echo "test: style or types are not clean; see the lines that begin with 'lint:'" >&2; fi
exit $((lint > tests ? lint : tests))
