#!/usr/bin/env bash
# An engine and the images of docker-compose.yml: all of them, or those of the services named. Two at once do not build
# the same twice: the second waits, and finds it done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deploy/docker-engine.sh up
if command -v flock >/dev/null; then exec 9<docker-compose.yml; flock 9; fi
deploy/compose.sh build --quiet "$@"
