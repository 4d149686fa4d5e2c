"""Whether a service of ours serves, for a container's health check: exit code 0 when it does.

    python health.py HOST:PORT IDENTITY_FOLDER [SERVICE]

Standard gRPC health checking over mutual TLS, with the service's own identity; nobody but the holder of that very
certificate is believed. It runs all day on small boards, so it imports gRPC and nothing else: the two messages of that
protocol are a few bytes, written here by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc

TIMEOUT_S = 5
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}


def serving(address: str, identity: Path, service: str = "") -> bool:
    """Raises grpc.RpcError when nothing answers there."""
    key, certificate = ((identity / name).read_bytes() for name in ("key.pem", "cert.pem"))
    request = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
    tls, direct = grpc.ssl_channel_credentials(certificate, key, certificate), [("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(address, tls, options=direct) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
        answer: bytes = check(request, timeout=TIMEOUT_S)
        return answer == SERVING


def main(arguments: list[str]) -> int:
    """The exit code; what is wrong goes to standard error, where `docker inspect` shows it."""
    address, identity, *service = arguments
    try:
        if serving(address, Path(identity), *service):
            return 0
        print("not serving", file=sys.stderr)
    except grpc.RpcError as error:
        print(f"no answer: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
