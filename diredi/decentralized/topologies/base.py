"""The recipe and the type of a topology."""

from __future__ import annotations

from typing import Protocol

import networkx as nx
import numpy as np

from diredi.config import Config


class TopologyRecipe(Config):
    """Choose a topology and its numbers. A topology ignores the fields that are marked for others.

    The numbers are checked when the graph is created, since they depend on the number of peers.
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
    """A function that creates a graph for a number of peers."""

    def __call__(self, peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
        """Create the graph.

        Args:
            peers: Number of peers, 1 or more.
            recipe: Numbers of the topology.
            random: The only source of randomness.

        Returns:
            An undirected graph without self loops, with the nodes 0 to peers - 1.

        Raises:
            InvalidInput: The recipe does not fit the number of peers.
        """
        ...
