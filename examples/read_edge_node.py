"""Read the detections of an edge node: `python examples/read_edge_node.py HOST:PORT IDENTITY_FOLDER [FRAMES]`.

The identity folder has ca.pem, cert.pem and key.pem of the device's own site, as `diredi pki issue` makes them. Any
language with gRPC can do this; the contract is proto/diredi/v1/edge.proto.
"""

import sys
from pathlib import Path

import grpc

from diredi.rpc.v1.edge_pb2 import DetectStreamRequest, GetStatusRequest
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceStub

address, identity, frames = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 10
ca, key, certificate = ((identity / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
credentials = grpc.ssl_channel_credentials(ca, key, certificate)

with grpc.secure_channel(address, credentials) as channel:
    edge = EdgeServiceStub(channel)
    status = edge.GetStatus(GetStatusRequest(), timeout=5)
    names = ", ".join(item.name for item in status.labels.classes)
    print(f"{status.device} at {status.site} runs release {status.release_version} and knows {names}")
    for number, message in enumerate(edge.DetectStream(DetectStreamRequest()), start=1):
        seen = ", ".join(f"{box.class_name} {box.confidence:.2f}" for box in message.detections) or "nothing"
        print(f"frame {message.frame}: {seen}")
        if number == frames:
            break
