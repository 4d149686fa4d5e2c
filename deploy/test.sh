#!/usr/bin/env bash
# All checks and all tests, beside each other on every core, with pytest's own summary last. Sets .venv up first.
#   deploy/test.sh [pytest's options]           what is named is all that runs, and no image is built ahead
#   deploy/test.sh --quick [pytest's options]   no checks, no containers, no browser, and no test that is slow
# WORKERS says how many processes test: by default one more than there are cores, since tests wait for others' processes
# part of the time, and 5 at most.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
workers=$(( $(getconf _NPROCESSORS_ONLN) + 1 ))
pytest=(.venv/bin/python -m pytest --numprocesses "${WORKERS:-$(( workers > 5 ? 5 : workers ))}" --dist loadscope
        --no-loadscope-reorder --durations 10)
trap 'kill $(jobs -p) 2>/dev/null' EXIT   # of a run that was interrupted
# While .venv is set up, which leaves cores idle. The tests of containers ask for the images again, wait for this, and tell
# what went wrong.
[ $# -gt 0 ] || deploy/images.sh >/dev/null 2>&1 &
"${PYTHON:-python3}" deploy/setup.py || exit
if [ "${1:-}" = --quick ]; then
  shift
  exec "${pytest[@]}" -m "not (slow or containers or browser or gpu)" "$@"
fi
{ said=$(deploy/lint.sh 2>&1); code=$?; printf '\n%s\n' "$said"; exit $code; } & lint=$!
"${pytest[@]}" "$@"; tests=$?
wait "$lint"; lint=$?
if [ "$lint" != 0 ]; then echo "test: style or types are not clean; see the lines that begin with 'lint:'" >&2; fi
exit $((lint > tests ? lint : tests))
