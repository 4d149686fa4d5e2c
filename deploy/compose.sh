#!/usr/bin/env bash
# docker compose for this deployment, with two things found out from the machine's own pip configuration:
#   WHEELS     a folder of wheels for the image build (pip's find-links, when that is a folder; else ./wheelhouse)
#   CA_BUNDLE  the certificate authorities for pip in the build (pip's cert, or SSL_CERT_FILE; else none)
# Both can be set by hand. Everything else is docker compose:  deploy/compose.sh ps
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pip_setting() { "${PYTHON:-python3}" -m pip config get "$1" 2>/dev/null || true; }

first_folder() {
  local place
  for place in $1; do [ ! -d "$place" ] || { echo "$place"; return; }; done
}

if [ -z "${WHEELS:-}" ]; then
  WHEELS=$(first_folder "${PIP_FIND_LINKS:-$(pip_setting global.find-links)}")
fi
export WHEELS=${WHEELS:-./wheelhouse}
if [ -z "${CA_BUNDLE:-}" ]; then
  CA_BUNDLE=${PIP_CERT:-$(pip_setting global.cert)}
  CA_BUNDLE=${CA_BUNDLE:-${SSL_CERT_FILE:-}}
fi
[ -s "${CA_BUNDLE:-}" ] || CA_BUNDLE=/dev/null
export CA_BUNDLE
exec docker compose "$@"
