"""A student for one fixed camera without a single label: the tutor looks several times and says what is there."""

from world import SIZE, models, quick, scenes

import diredi

tutor, student = models()
oracle = diredi.TTAPredictor.of(tutor, sizes=(SIZE, SIZE + 64))
for name, camera in list(scenes("car-park").by_camera(r"(.+)[-_]\d+").items())[:2]:
    seen = diredi.pseudo_label(oracle, camera, student.labels, confidence=0.25)
    boxes = sum(len(sample.boxes) for sample in seen.train)
    own = diredi.distil(student, seen, recipe=quick(epochs=30, batch=8))
    print(f"{name}: learned from {len(seen.train)} images and {boxes} boxes that nobody drew")
    for kind, model in (("as shipped", student), ("its own", own)):
        print(f"  {kind:10} {diredi.evaluate(model, seen)}" if any(len(s.boxes) for s in seen.val) else f"  {kind}")
