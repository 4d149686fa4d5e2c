"""The data of the built-in learners: a set of images with one label each, and a peer's own part of it.

Every peer makes the same partition of the same set and takes its own part of it. The images after the private ones are
public, and their labels are never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from torch import nn

from diredi.config import Config
from diredi.data import classification
from diredi.data.classification import ClassificationSet
from diredi.decentralized.network import create_network
from diredi.decentralized.partitions import PartitionRecipe, partition_labels
from diredi.decentralized.peer import Peer
from diredi.decentralized.recipe import NetworkRecipe
from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap
from peer_node.learner import LearnerContext

Section = TypeVar("Section", bound=Config)


class DataConfig(Config):
    """Configure what a peer learns from."""

    set: str = "digits"
    """A name in `diredi.data.classification.SETS`."""
    folder: Path | None = None
    """Folder that holds the set; None for the cache of downloads."""
    private: int = Field(default=1000, ge=1)
    """Number of images that are shared out to the peers, the first of the set."""
    public: int = Field(default=400, ge=1)
    """Number of images after these, which all peers hold."""
    partition: PartitionRecipe = PartitionRecipe()


def parse_section(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Validate one section of a peer's configuration.

    Raises:
        InvalidInput: A value is wrong; the message names it.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"the learner's {where} is wrong: {first['msg']}") from None


def load_data(data: DataConfig) -> ClassificationSet:
    """Load the set that the configuration names.

    Raises:
        InvalidInput: It has fewer images than asked for.
        DirediError: It cannot be loaded.
    """
    dataset = classification.load(data.set, data.folder)
    available = len(dataset.train)
    if data.private + data.public > available:
        raise InvalidInput(f"{data.set} has {available} images: ask for no more as private and public together")
    return dataset


def create_peer(
    context: LearnerContext,
    data: DataConfig,
    network: NetworkRecipe,
    dataset: ClassificationSet,
    seed: int | None = None,
) -> Peer:
    """Make a peer with its own part of the data.

    Args:
        context: Which of the peers it is.
        data: How the set is shared out.
        network: The network's recipe.
        dataset: The whole set.
        seed: Seed of the network; None for one that no other peer has.
    """
    shards = partition_labels(dataset.train.labels[: data.private], context.peers, data.partition, context.seed)
    own_seed = context.seed * context.peers + context.peer
    model = create_network(
        network, dataset.train.images.shape[1:], len(dataset.classes), own_seed if seed is None else seed
    )
    return Peer(f"peer-{context.peer}", model, dataset.train.select(shards[context.peer]), own_seed)


def weights_of(network: nn.Module) -> WeightMap:
    """Return a copy of a network's weights and buffers."""
    return WeightMap({name: value.numpy().copy() for name, value in network.state_dict().items()})
