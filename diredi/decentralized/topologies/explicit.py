"""The topology that a recipe lists edge by edge."""

from __future__ import annotations

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import TopologyRecipe
from diredi.errors import InvalidInput


def edges(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Connect the pairs of peers in `recipe.edges`. A peer without an edge learns alone."""
    if not recipe.edges:
        raise InvalidInput(
            "topology.edges names no edge: list pairs of peers, or set as many islands as peers if all shall be alone"
        )
    for a, b in recipe.edges:
        if not (0 <= a < peers and 0 <= b < peers):
            raise InvalidInput(
                f"topology.edges joins {a} and {b}, and there are {peers} peers: number them from 0 to {peers - 1}"
            )
        if a == b:
            raise InvalidInput(f"topology.edges joins peer {a} to itself: leave that edge out")
    graph = nx.empty_graph(peers)
    graph.add_edges_from(recipe.edges)
    return graph
