"""One whole update cycle: what a site sees reaches the manufacturer's student, and no image leaves the site."""

from world import FOLDER, models, quick, scenes

import diredi

site, maker = scenes("site-1"), scenes("presumed")
tutor, student = models()
recipe = {"form": "weights", "tutor": quick(epochs=6), "student": quick(epochs=6), "redistil": quick(epochs=2)}

print("at the site")
gaps = diredi.extract_gap(tutor, student, site, coreset=maker.sample(100), recipe=recipe)
gaps.save(FOLDER / "gaps")
print(f"  {len(gaps.tutor.to_bytes()):,} bytes of gap in place of {site.bytes_on_disk():,} bytes of images and labels")
print(f"  student before: {gaps.metrics.student_before}")

print("at the manufacturer")
updated = diredi.apply_gap(tutor, gaps.tutor, guard=maker, recipe=recipe)
print(f"  lambda {updated.lam}: mAP50 on its own images {updated.before.map50:.3f} -> {updated.after.map50:.3f}")
new = diredi.redistil(student, updated.model, gaps.student, guard=maker, recipe=recipe)
diredi.export(new.model, FOLDER / "student.onnx")
added = ", ".join(new.model.labels.new_since(student.labels)) or "no new class"
print(f"  the next student is {new.chosen!r}, with {added}")

print("on a camera")
camera = diredi.OnnxPredictor(FOLDER / "student.onnx")
print(f"  student after: {diredi.evaluate(camera, site)}")
