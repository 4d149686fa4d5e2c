#!/usr/bin/env bash
# A Docker engine, Compose v2, Buildx and the base image, on a machine that may have none of them.
#
#   deploy/docker-engine.sh up      make sure of all four; changes nothing where they are there
#   deploy/docker-engine.sh status  say what there is
#   deploy/docker-engine.sh down    stop the engine, if (and only if) `up` started it
#
# Settings (environment):
#   BASE_IMAGE   the image that ours start from                     (debian:bookworm-slim)
#   ENGINE_ROOT  a folder: use a private engine that lives in it, not the machine's own
#   DOCKER_HOST  an engine elsewhere; respected, never touched
#
# Packages are installed only as root on Debian or Ubuntu; everywhere else the script says in a sentence what to do.
set -euo pipefail

BASE_IMAGE=${BASE_IMAGE:-debian:bookworm-slim}
BASE_SUITE=bookworm     # what BASE_IMAGE is made of where it cannot be pulled
ENGINE_SUITE=trixie     # the Debian release that has an engine and Compose of this decade
OLDEST_ENGINE=23        # named build contexts
ENGINE_ROOT=${ENGINE_ROOT:-}
APT_LOCK=/tmp/diredi-apt.lock

if [ -n "$ENGINE_ROOT" ]; then
  mkdir -p "$ENGINE_ROOT"; ENGINE_ROOT=$(cd "$ENGINE_ROOT" && pwd)
  export DOCKER_HOST=unix://$ENGINE_ROOT/docker.sock
  PID_FILE=$ENGINE_ROOT/docker.pid MARK=$ENGINE_ROOT/started-here LOG=$ENGINE_ROOT/dockerd.log
  CONTAINERD_PID_FILE=$ENGINE_ROOT/exec/containerd/containerd.pid
  ENGINE_ARGS=(--data-root "$ENGINE_ROOT/data" --exec-root "$ENGINE_ROOT/exec" --host "$DOCKER_HOST" --pidfile "$PID_FILE")
else
  PID_FILE=/var/run/docker.pid MARK=/var/run/docker.started-by-diredi LOG=/var/log/dockerd.log
  CONTAINERD_PID_FILE=/var/run/docker/containerd/containerd.pid
  ENGINE_ARGS=()
fi

say() { printf 'docker-engine: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }
distribution() { (. /etc/os-release 2>/dev/null && echo "${ID:-unknown}") || echo unknown; }
release() { (. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-unknown}") || echo unknown; }
answers() { timeout 20 docker info >/dev/null 2>&1; }
has_compose() { docker compose version >/dev/null 2>&1; }
has_buildx() { docker buildx version >/dev/null 2>&1; }
# alive PID_FILE PROGRAM: an engine that was killed leaves its file behind, and the number may be another program's by now.
alive() { [ -s "$1" ] && [ "$(cat "/proc/$(cat "$1")/comm" 2>/dev/null)" = "$2" ]; }

# ---- packages ------------------------------------------------------------------------------------------------------

# The Debian mirror that this machine already uses.
mirror() {
  cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null \
    | sed -nE 's#^(URIs: *|deb +(\[[^]]*\] +)?)(https?://[^ ]+/debian)/?( .*)?$#\3#p' | sed -n 1p || true
}

# apt-get install with $ENGINE_SUITE as a further source of low priority, for this one call: the machine's own sources
# and preferences stay as they are.
install_from_engine_suite() {
  local scratch mirror options
  mirror=$(mirror); mirror=${mirror:-http://deb.debian.org/debian}
  scratch=$(mktemp -d); chmod 755 "$scratch"; mkdir -p "$scratch"/{sources.d,preferences.d,lists/partial}
  cp /etc/apt/sources.list.d/* "$scratch/sources.d/" 2>/dev/null || true
  [ ! -s /etc/apt/sources.list ] || cp /etc/apt/sources.list "$scratch/sources.list"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $ENGINE_SUITE main" \
    >"$scratch/sources.d/zz-engine.list"
  printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$ENGINE_SUITE" >"$scratch/preferences.d/engine"
  options=(-o Dir::Etc::sourcelist="$scratch/sources.list" -o Dir::Etc::sourceparts="$scratch/sources.d"
           -o Dir::Etc::preferencesparts="$scratch/preferences.d" -o Dir::State::lists="$scratch/lists")
  apt_install "$scratch/log" "${options[@]}" -- "$@"
  rm -rf "$scratch"
}

# apt_install LOG [apt options] -- PACKAGE...
apt_install() {
  local log=$1 options=(); shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done; shift
  # Tests install the RTSP server of their cameras meanwhile, and apt waits for nobody.
  local apt=(flock --close "$APT_LOCK" apt-get -qq "${options[@]}")
  { "${apt[@]}" update && DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@"; } \
    >"$log" 2>&1 </dev/null || { tail -n 15 "$log" >&2; die "apt-get could not install $*: see above"; }
}

# Debian names its packages otherwise than Ubuntu, and bookworm's own are too old.
install_packages() {
  local what=$1 names=() name log
  is_root || die "missing: $what. Install Docker (https://docs.docker.com/engine/install/), or run this as root"
  command -v apt-get >/dev/null || die "missing: $what. Install Docker (https://docs.docker.com/engine/install/)"
  case $(distribution):$what in
    ubuntu:engine) names=(docker.io) ;;
    ubuntu:compose) names=(docker-compose-v2 docker-buildx) ;;
    *:engine) names=(docker.io docker-cli) ;;
    *:compose) names=(docker-compose docker-buildx) ;;
    *) names=("$what") ;;
  esac
  say "installing ${names[*]}"
  if [ "$(distribution)" = debian ] && [ "$(release)" = bookworm ] && [ "$what" != debootstrap ]; then
    for name in "${!names[@]}"; do names[name]+=/$ENGINE_SUITE; done
    install_from_engine_suite "${names[@]}"
  else
    log=$(mktemp); apt_install "$log" -- "${names[@]}"; rm -f "$log"
  fi
  hash -r
}

# ---- engine --------------------------------------------------------------------------------------------------------

start_engine() {
  [ -z "${DOCKER_HOST:-}" ] || [ -n "$ENGINE_ROOT" ] || die "no engine answers at DOCKER_HOST=$DOCKER_HOST: start it, or unset DOCKER_HOST"
  command -v dockerd >/dev/null || install_packages engine
  answers && return                         # a package that starts its own service
  is_root || die "no Docker engine answers: start Docker (and let this user use it), then try again"
  if [ -z "$ENGINE_ROOT" ] && [ -d /run/systemd/system ]; then
    say "starting the service docker"
    systemctl start docker
  else
    say "starting dockerd (log: $LOG)"
    alive "$PID_FILE" dockerd || rm -f "$PID_FILE"
    alive "$CONTAINERD_PID_FILE" containerd || rm -f "$CONTAINERD_PID_FILE"   # else dockerd waits in vain for that process
    mkdir -p "$(dirname "$LOG")"
    setsid nohup dockerd "${ENGINE_ARGS[@]}" </dev/null >>"$LOG" 2>&1 &
  fi
  : >"$MARK"
  wait_for_engine
}

wait_for_engine() {
  local i
  for i in $(seq 150); do
    ! answers || return 0
    [ "$i" -lt 10 ] || [ -d /run/systemd/system ] || alive "$PID_FILE" dockerd || break
    sleep 0.4
  done
  tail -n 20 "$LOG" >&2 2>/dev/null || true
  rm -f "$MARK"
  die "the engine did not come up; its last lines are above, all of them in $LOG"
}

stop_engine() {
  [ -f "$MARK" ] || { say "nothing to stop: no engine was started by this script"; return; }
  if [ -z "$ENGINE_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl stop docker docker.socket
  elif alive "$PID_FILE" dockerd; then
    local pid; pid=$(cat "$PID_FILE"); kill "$pid"
    for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    ! kill -0 "$pid" 2>/dev/null || die "dockerd ($pid) does not end: see $LOG"
  fi
  rm -f "$MARK"; say "stopped"
}

# ---- base image ----------------------------------------------------------------------------------------------------

base_image() {
  ! docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 || return 0
  ! timeout 180 docker pull -q "$BASE_IMAGE" >/dev/null 2>&1 || { say "pulled $BASE_IMAGE"; return 0; }
  is_root && [ -r /etc/debian_version ] || die "$BASE_IMAGE can be neither pulled nor made here: load it with 'docker load'"
  case $BASE_IMAGE in *$BASE_SUITE*) ;; *) die "$BASE_IMAGE cannot be pulled, and only Debian $BASE_SUITE can be made here" ;; esac
  say "no registry answers: making $BASE_IMAGE with debootstrap (about half a minute)"
  command -v debootstrap >/dev/null || install_packages debootstrap
  make_base_image
}

# Debian's own packages, arranged as the public slim image is.
make_base_image() {
  local scratch root mirror
  scratch=$(mktemp -d); root=$scratch/root
  trap "umount '$scratch' 2>/dev/null || true; rm -rf '$scratch'" EXIT
  mount -t tmpfs -o size=1g,mode=755 tmpfs "$scratch" 2>/dev/null || true   # dpkg syncs each file: slow on a busy disk
  mirror=$(mirror); mirror=${mirror:-http://deb.debian.org/debian}
  debootstrap --variant=minbase "$BASE_SUITE" "$root" "$mirror" >"$scratch/log" 2>&1 \
    || { tail -n 15 "$scratch/log" >&2; die "debootstrap could not make $BASE_IMAGE from $mirror: see above"; }
  slim "$root" "$mirror"
  tar -C "$root" --numeric-owner --sort=name -c . | docker import -c 'CMD ["bash"]' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$BASE_IMAGE" >/dev/null
}

slim() {
  local root=$1 mirror=$2
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"
  echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/docker-apt-speedup"
  printf 'path-%s\n' 'exclude /usr/share/doc/*' 'include /usr/share/doc/*/copyright' 'exclude /usr/share/man/*' \
    'exclude /usr/share/locale/*' 'exclude /usr/share/info/*' 'exclude /usr/share/lintian/*' \
    >"$root/etc/dpkg/dpkg.cfg.d/docker"
  cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'APT'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; Acquire::Languages "none"; Acquire::GzipIndexes "true";
APT
  printf 'deb %s\n' "$mirror $BASE_SUITE main" "$mirror $BASE_SUITE-updates main" "$mirror-security $BASE_SUITE-security main" \
    >"$root/etc/apt/sources.list"
  find "$root/usr/share/doc" -mindepth 2 ! -name copyright ! -type d -delete
  rm -rf "$root"/usr/share/{man,locale,info}/* "$root"/usr/share/lintian "$root"/var/lib/apt/lists/* \
    "$root"/var/cache/apt/{*.bin,archives/*.deb} "$root"/var/cache/debconf/*-old "$root"/var/log/{*.log,apt} \
    "$root"/var/cache/ldconfig/aux-cache "$root"/etc/hostname
  : >"$root/etc/resolv.conf"
}

# ---- commands ------------------------------------------------------------------------------------------------------

up() {
  command -v docker >/dev/null || install_packages engine
  answers || start_engine
  has_compose && has_buildx || install_packages compose
  has_compose || die "'docker compose' still does not answer: install Compose v2 (https://docs.docker.com/compose/install/)"
  local version; version=$(docker version -f '{{.Server.Version}}')
  [ "${version%%.*}" -ge "$OLDEST_ENGINE" ] || die "engine $version is too old: $OLDEST_ENGINE or later is needed"
  base_image
  say "ready: engine $version, compose $(docker compose version --short), $BASE_IMAGE"
}

status() {
  docker version -f 'engine {{.Server.Version}}' 2>/dev/null || echo "no engine answers"
  docker compose version 2>/dev/null || echo "no compose"
  docker buildx version 2>/dev/null || echo "no buildx"
  docker image inspect -f "$BASE_IMAGE {{.Size}} bytes" "$BASE_IMAGE" 2>/dev/null || echo "no $BASE_IMAGE"
}

# Two at once (tests in parallel, two terminals) must not start two engines.
locked() {
  local folder=${ENGINE_ROOT:-/var/run}
  if command -v flock >/dev/null && [ -w "$folder" ]; then exec 9>"$folder/diredi-docker-engine.lock"; flock 9; fi
  "$@" 9>&-
}

case ${1:-up} in
  up) locked up ;;
  status) status ;;
  down) locked stop_engine ;;
  *) die "usage: $0 up|status|down" ;;
esac
