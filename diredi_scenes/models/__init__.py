"""Models of objects and props. To add one, write its function in a file of this package and add a line here."""

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
"""Builders of labelled objects, by class name."""

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
"""Builders of props without a label; some resemble labelled objects."""
