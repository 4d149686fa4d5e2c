#!/usr/bin/env bash
# The three peers of docker-compose.yml (profile `peers`), and nothing else of it but the certificates: engine, image,
# containers. Shows their logs until the last has ended; Ctrl-C stops them. As in `diredi peers run`, a peer that dies
# is an error only if none gets to its end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PEERS=(peer-1 peer-2 peer-3)
compose() { deploy/compose.sh --profile peers "$@"; }
echo "up-peers: building the image (the first time takes minutes)" >&2
deploy/images.sh cloud      # the image that all who need torch share
compose up "${PEERS[@]}"
compose ps --all "${PEERS[@]}"
compose ps --all --format '{{.ExitCode}}' "${PEERS[@]}" | grep -qx 0 \
  || { echo "up-peers: no peer got to its end: the log above says why" >&2; exit 1; }
cat <<'TEXT'

What became of each round:   deploy/compose.sh --profile peers cp peer-1:/var/lib/diredi/summary.json peer-1.json
Forget it:                   make down VOLUMES=1
TEXT
