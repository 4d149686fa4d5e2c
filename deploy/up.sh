#!/usr/bin/env bash
# The deployment of docker-compose.yml: engine, images, containers, and an admin's identity for the shells of this machine
# (deploy/pki/operator, where `diredi` looks by default), whose key is made here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
IDENTITY=deploy/pki/operator
echo "up: building the images (the first time takes minutes)" >&2
deploy/images.sh
deploy/compose.sh up --detach --wait --wait-timeout "${WAIT_S:-600}"
export DIREDI_CLOUD="localhost:${DIREDI_CLOUD_PORT:-8443}" DIREDI_IDENTITY=$IDENTITY
if ! .venv/bin/diredi group list >/dev/null 2>&1; then
  rm -rf "$IDENTITY"
  deploy/compose.sh exec -T cloud diredi pki token admin/operator --ca /authority --address "$DIREDI_CLOUD" --json \
    | .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["token"])' \
    | .venv/bin/diredi pki enroll - --out "$IDENTITY" >/dev/null
fi
deploy/compose.sh ps
cat <<'TEXT'

Running. The cloud draws its scenes and begins with the starter release; with other data or models it trains release 1 first.
`.venv/bin/diredi device list` shows release 1 on every edge when that is done.
Then:   .venv/bin/diredi cycle start --site site-1 --watch
        make logs        make down
The site's pages, by a link that works once:
        deploy/compose.sh exec user-domain diredi site open user-domain:8444 --identity /identity
TEXT
