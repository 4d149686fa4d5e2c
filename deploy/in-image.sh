#!/bin/sh
# A step of an image build:
#   in-image.sh packages NAME...   Debian packages; no mirror is asked where the base image has them
#   in-image.sh python GROUPS      /opt/venv with these groups of pyproject.toml
#   in-image.sh lean               less what builds, and what no service needs at run time
set -eu
step=$1; shift
if [ "$step" = packages ]; then
  ! dpkg -s "$@" >/dev/null 2>&1 || exit 0
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  rm -rf /var/lib/apt/lists/*
  exit
fi
if [ "$step" = lean ]; then
  cd /opt/venv/lib/python3*/site-packages
  rm -rf pip pip-* setuptools setuptools-* _distutils_hack distutils-precedence.pth pkg_resources /opt/venv/bin/pip*
  rm -rf onnx/backend/test/data torch/test torch/include torch/share
  find torch/bin -type f ! -name torch_shm_manager -delete 2>/dev/null || true
  exit
fi
[ ! -s /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
[ -n "${PIP_NO_INDEX:-}" ] || unset PIP_NO_INDEX
export PIP_FIND_LINKS=/wheelhouse PIP_CACHE_DIR=/var/cache/pip
python3 deploy/setup.py --venv /opt/venv --groups "$1" --no-project || { tail -n 30 /opt/venv/setup.log; exit 1; }
