"""What can stand in a scene. A new kind of object is a function in one of these files and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from diredi_scenes.meshes import Model
from diredi_scenes.models import clutter, machines, people, vehicles

Builder = Callable[[np.random.Generator], Model]

OBJECTS: Mapping[str, Builder] = {
    "person": people.person,
    "bicycle": people.bicycle,
    "car": vehicles.car,
    "motorcycle": people.motorcycle,
    "bus": vehicles.bus,
    "truck": vehicles.truck,
    "forklift": machines.forklift,
    "excavator": machines.excavator,
}
"""By class name."""

CLUTTER: Mapping[str, Builder] = {
    "bin": clutter.bin_,
    "cabinet": clutter.cabinet,
    "cone": clutter.cone,
    "crates": clutter.crates,
    "drum": clutter.drum,
    "generator": clutter.generator,
    "planter": clutter.planter,
    "post": clutter.post,
    "rack": clutter.rack,
    "sign": clutter.sign,
    "skip": clutter.skip,
    "tree": clutter.tree,
}
"""Things without a label; some look like things that have one."""
