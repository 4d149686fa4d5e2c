"""Topologies that depend on the number of peers alone."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import TopologyRecipe


def complete(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Connect every peer with every other, as in Molo et al., SISAP 2024."""
    return nx.complete_graph(peers)


def ring(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Connect each peer with the one before and the one after. Two peers share one edge; one peer has none."""
    return nx.cycle_graph(peers) if peers > 1 else nx.empty_graph(peers)


def star(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Connect peer 0 with all others, which have no further neighbours."""
    return nx.star_graph(peers - 1)


def grid(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Arrange the peers row by row in the most nearly square full rectangle, and connect adjacent ones.

    A number of peers that does not factor well makes a long grid, and a prime number a path: 12 peers are 3 rows of 4,
    14 are 2 rows of 7, and 13 are a line.
    """
    rows = max(n for n in range(1, math.isqrt(peers) + 1) if peers % n == 0)
    return nx.convert_node_labels_to_integers(nx.grid_2d_graph(rows, peers // rows))
