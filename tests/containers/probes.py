"""Code that tests run inside containers, as text: what a process there can and cannot do."""

from __future__ import annotations

# Prints "refused", "unresolved", "unreachable" or "connected" for HOST PORT.
CONNECT = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
try:
    socket.getaddrinfo(host, port)
except socket.gaierror:
    print("unresolved"); sys.exit()
try:
    socket.create_connection((host, port), timeout=4).close()
except ConnectionRefusedError:
    print("refused")
except OSError:
    print("unreachable")
else:
    print("connected")
"""

# Prints to how many gateways a packet for a strange address could go.
WAYS_OUT = """
print(sum(line.split()[1] == "00000000" for line in open("/proc/net/route")))
"""

# Prints what a process there is and may: user id, whether it can write beside its volume, its capabilities.
CONFINEMENT = """
import json, os
def writable(folder):
    try:
        open(os.path.join(folder, "probe"), "w").close()
    except OSError:
        return False
    os.remove(os.path.join(folder, "probe"))
    return True
status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/1/status") if ":\\t" in line)
print(json.dumps({
    "uid": os.getuid(),
    "writes": [f for f in ("/", "/app", "/etc", "/opt/venv", "/identity") if os.path.isdir(f) and writable(f)],
    "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"] == "1",
}))
"""

# The site's own check of one of its edge nodes: shows it the held-out images that have an object of CLASS, and prints
# for each whether the node found one where it is labelled. Runs in the user domain's container: the images stay there.
DETECT = """
import asyncio, json, sys
from pathlib import Path
from diredi.data.dataset import load
from diredi.rpc.client import call, connect
from diredi.rpc.v1.edge_pb2 import DetectImageRequest, GetStatusRequest
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceStub
from diredi.trust.identity import Credentials, Identity, Role
import cv2

edge, wanted = sys.argv[1:3]
own = Credentials.load(Path("/identity"))
camera = Identity(Role.DEVICE, edge.partition(":")[0], own.identity.site)
(data,) = Path("/var/lib/diredi").rglob("scenes-*/data.yaml")

def overlap(box, detection):
    left, top = max(box[0], detection.x1), max(box[1], detection.y1)
    right, bottom = min(box[2], detection.x2), min(box[3], detection.y2)
    inner = max(0, right - left) * max(0, bottom - top)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return inner / (area + (detection.x2 - detection.x1) * (detection.y2 - detection.y1) - inner)

async def main():
    data_set = load(data)
    row = data_set.names.index(wanted)
    boxes = found = unseen = 0
    async with connect(edge, own, server=camera) as channel:
        stub = EdgeServiceStub(channel)
        for sample in data_set.val:
            labelled = [b for b in sample.boxes if int(b[0]) == row]
            height, width = cv2.imread(str(sample.image)).shape[:2]
            request = DetectImageRequest(image=sample.image.read_bytes(), confidence=0.25)
            answer = await call(stub.DetectImage, request, deadline_s=10)
            seen = [d for d in answer.detections if d.class_name == wanted]
            for _, cx, cy, w, h in labelled:
                box = ((cx - w/2)*width, (cy - h/2)*height, (cx + w/2)*width, (cy + h/2)*height)
                boxes += 1
                found += any(overlap(box, d) >= 0.5 for d in seen)
            unseen += bool(seen) and not labelled
        status = await call(stub.GetStatus, GetStatusRequest(), deadline_s=5)
    print(json.dumps({"boxes": boxes, "found": found, "false_images": unseen,
                      "release": status.release_version, "frames": status.frames, "dropped": status.dropped_frames,
                      "classes": [c.name for c in status.labels.classes]}))

asyncio.run(main())
"""
