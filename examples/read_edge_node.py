"""Read what a device sees: `python examples/read_edge_node.py HOST:PORT IDENTITY_FOLDER DEVICE [FRAMES]`.

The identity folder has ca.pem, cert.pem and key.pem of the device's own site, as `diredi pki issue` makes them. Any
language with gRPC can do this; the contract is proto/diredi/v1/edge.proto. The name that the certificate is asked for
is one of the DNS names in it: no other device, and nobody else of the fleet, can answer in its place.
"""

import sys
from pathlib import Path

import grpc

from diredi.rpc.v1.edge_pb2 import DetectStreamRequest, GetStatusRequest
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceStub
from diredi.trust.identity import Identity, Role, server_name

address, identity, device = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
frames = int(sys.argv[4]) if len(sys.argv) > 4 else 10
ca, key, certificate = ((identity / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
credentials = grpc.ssl_channel_credentials(ca, key, certificate)
site = Identity.from_certificate(certificate).site
expected = server_name(Identity(Role.DEVICE, device, site), address.rpartition(":")[0])

with grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", expected)]) as channel:
    edge = EdgeServiceStub(channel)
    status = edge.GetStatus(GetStatusRequest(), timeout=5)
    names = ", ".join(item.name for item in status.labels.classes)
    print(f"{status.device} at {status.site} runs release {status.release_version} and knows {names}")
    for number, message in enumerate(edge.DetectStream(DetectStreamRequest()), start=1):
        seen = ", ".join(f"{box.class_name} {box.confidence:.2f}" for box in message.detections) or "nothing"
        print(f"frame {message.frame}: {seen}")
        if number == frames:
            break
