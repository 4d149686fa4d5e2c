"""What a topology is asked for, and the shape that every kind has."""

from __future__ import annotations

from typing import Protocol

import networkx as nx
import numpy as np

from diredi.config import Config


class TopologyRecipe(Config):
    """Who is a neighbour of whom. What a kind does not name it does not read.

    That the numbers go together is checked where the graph is made, for it depends on how many peers there are.
    """

    kind: str = "complete"
    """The kind of graph, by its name in `diredi.decentralized.topologies.TOPOLOGIES`."""
    degree: int = 2
    """regular: how many neighbours each peer has."""
    probability: float = 0.5
    """random: the probability of each edge."""
    islands: int = 2
    """islands: how many groups there are."""
    bridges: int = 0
    """islands: how many edges there are between two neighbouring groups."""
    edges: tuple[tuple[int, int], ...] = ()
    """edges: pairs of peers, counted from 0. An edge that is named twice counts once."""
    changes: bool = False
    """Whether every round has another graph of the same kind. Random edges are drawn again and the peers change
    places."""


class Topology(Protocol):
    """An undirected graph without self loops, its nodes 0 to peers - 1, for one peer or more.

    All that is random comes from `random`. Raises InvalidInput for a recipe that these peers cannot follow.
    """

    def __call__(self, peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph: ...
