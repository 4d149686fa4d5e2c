"""Shapes that need nothing but the number of peers."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import TopologyRecipe


def complete(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Everybody with everybody, as in Molo et al., SISAP 2024. It is the same whoever changes places."""
    return nx.complete_graph(peers)


def ring(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Each peer with the one before and the one after. Two peers have one edge; one has nobody."""
    return nx.cycle_graph(peers) if peers > 1 else nx.empty_graph(peers)


def star(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Peer 0 with all others, who have nobody else."""
    return nx.star_graph(peers - 1)


def grid(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """A whole rectangle, row by row, the most nearly square one that has a place for each peer and no other.

    Within it everybody has four neighbours, and no last row is left half filled. So a number that does not factor well
    makes a long grid, and a prime one a path: 12 peers are 3 rows of 4, 14 are 2 of 7, and 13 stand in a line.
    """
    rows = max(n for n in range(1, math.isqrt(peers) + 1) if peers % n == 0)
    return nx.convert_node_labels_to_integers(nx.grid_2d_graph(rows, peers // rows))
