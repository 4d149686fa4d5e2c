#!/usr/bin/env bash
# The deployment of docker-compose.yml: engine, images, containers, and the operator's identity for the shells of this
# machine (deploy/pki/operator, where `diredi` looks by default).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
IDENTITY=deploy/pki/operator
echo "up: building the images (the first time takes minutes)" >&2
deploy/images.sh
deploy/compose.sh up --detach --wait --wait-timeout "${WAIT_S:-600}"
rm -rf "$IDENTITY" && mkdir -p "$(dirname "$IDENTITY")"
deploy/compose.sh cp pki:/identities/operator "$IDENTITY" 2>/dev/null
chmod 700 "$IDENTITY" && chmod 600 "$IDENTITY/key.pem"
deploy/compose.sh ps
cat <<'TEXT'

Running. The cloud draws its scenes and begins with the starter release; with other data or models it trains release 1 first.
`.venv/bin/diredi device list` shows release 1 on every edge when that is done.
Then:   .venv/bin/diredi cycle start --site site-1 --watch
        make logs        make down
TEXT
