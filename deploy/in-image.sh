#!/bin/sh
# A step of an image build:
#   in-image.sh GROUPS   /opt/venv with these groups of pyproject.toml
#   in-image.sh lean     less what builds, and what no service needs at run time
set -eu
packages=$(echo /opt/venv/lib/python3*/site-packages)
if [ "$1" = lean ]; then
  cd "$packages"
  rm -rf pip pip-* setuptools setuptools-* _distutils_hack distutils-precedence.pth pkg_resources /opt/venv/bin/pip*
  rm -rf onnx/backend/test/data torch/test torch/include torch/share
  find torch/bin -type f ! -name torch_shm_manager -delete 2>/dev/null || true
  exit
fi
[ ! -s /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
[ -n "${PIP_NO_INDEX:-}" ] || unset PIP_NO_INDEX
export PIP_FIND_LINKS=/wheelhouse PIP_CACHE_DIR=/var/cache/pip
python3 deploy/setup.py --venv /opt/venv --groups "$1" --no-project || { tail -n 30 /opt/venv/setup.log; exit 1; }
