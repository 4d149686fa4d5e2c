"""Three peers without a cloud: each learns its own labels and what the others say of its images."""

from world import SIZE, models, quick, scenes

import diredi

tutor, _ = models()
data = scenes("presumed")
parts = [diredi.Dataset(data.root, data.names, data.train[i::3], data.val) for i in range(3)]
peers: list[diredi.Detector] = [
    diredi.distil(diredi.create("yolo11-w0.0625", SIZE, data.names, seed), part, recipe=quick(epochs=10))
    for seed, part in enumerate(parts)
]
for number, peer in enumerate(peers):
    print(f"peer {number} alone        {diredi.evaluate(peer, data)}")

for round_ in range(1, 3):
    before = list(peers)  # within a round all listen to what the others were before it
    for number, part in enumerate(parts):
        others = diredi.EnsembleTeacher([peer for other, peer in enumerate(before) if other != number])
        peers[number] = diredi.distil(before[number], part, teacher=others, recipe=quick(epochs=4))
    print(f"peer 0 after round {round_} {diredi.evaluate(peers[0], data)}")
