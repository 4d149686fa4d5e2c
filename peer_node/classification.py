"""What the learners that come with DiReDi learn from: a set of images with a label each, and a peer's own part of it.

Every peer makes the same partition of the same set and takes its own part of it; what follows the private images is
public, and its labels are never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from diredi.config import Config
from diredi.data import classification
from diredi.data.classification import ClassificationSet
from diredi.decentralized.network import create
from diredi.decentralized.partitions import PartitionRecipe, partitioned
from diredi.decentralized.peer import Peer
from diredi.decentralized.recipe import NetworkRecipe
from diredi.errors import InvalidInput
from peer_node.learner import LearnerContext

Section = TypeVar("Section", bound=Config)


class DataConfig(Config):
    """What is learned from."""

    set: str = "digits"
    """A name in `diredi.data.classification.SETS`."""
    folder: Path | None = None
    """Where it lies; None: the cache of downloads."""
    private: int = Field(default=1000, ge=1)
    """Images that are shared out to the peers, the first of the set."""
    public: int = Field(default=400, ge=1)
    """Images after these, which all peers hold."""
    partition: PartitionRecipe = PartitionRecipe()


def parse_section(section: type[Section], values: Mapping[str, Any]) -> Section:
    """One section of a peer's configuration. Raises InvalidInput that names what is wrong in it."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"the learner's {where} is wrong: {first['msg']}") from None


def load_data(data: DataConfig) -> ClassificationSet:
    """Raises InvalidInput for a set that is too small, and what loading it raises."""
    found = classification.load(data.set, data.folder)
    if data.private + data.public > len(found.train):
        raise InvalidInput(f"{data.set} has {len(found.train)} images: ask for no more as private and public together")
    return found


def create_peer(
    context: LearnerContext, data: DataConfig, network: NetworkRecipe, found: ClassificationSet, seed: int | None = None
) -> Peer:
    """With its own part of the data. `seed` is the network's; None: one that no other peer has."""
    shards = partitioned(found.train.labels[: data.private], context.peers, data.partition, context.seed)
    own = context.seed * context.peers + context.peer
    made = create(network, found.train.images.shape[1:], len(found.classes), own if seed is None else seed)
    return Peer(f"peer-{context.peer}", made, found.train.taken(shards[context.peer]), own)
