"""Topologies without chance: they follow from the number of peers and the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import TopologyRecipe
from diredi.errors import InvalidInput

Island = Sequence[int]


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


def islands(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Split consecutive peers into fully connected islands, and join neighbouring islands by bridges.

    The sizes of islands differ by one at most, larger ones first. Islands form a ring, and `recipe.bridges` edges join
    each pair of neighbours. These edges use different peers for as long as there are any left.
    """
    if not 1 <= recipe.islands <= peers:
        raise InvalidInput(
            f"{peers} peers cannot be {recipe.islands} islands: set topology.islands to a number from 1 to {peers}"
        )
    groups = [group.tolist() for group in np.array_split(np.arange(peers), recipe.islands)]
    graph = nx.disjoint_union_all(nx.complete_graph(len(group)) for group in groups)
    for island, following in _neighbouring(groups):
        graph.add_edges_from(_bridges(island, following, recipe.bridges))
    return graph


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


def _neighbouring(groups: Sequence[Island]) -> list[tuple[Island, Island]]:
    pairs = list(zip(groups, [*groups[1:], groups[0]], strict=True))
    return pairs if len(groups) > 2 else pairs[:-1]


def _bridges(island: Island, other: Island, number: int) -> Iterator[tuple[int, int]]:
    """Yield edges from the last peer of `island` to the first of `other`; each next edge moves on by one peer."""
    most = len(island) * len(other)
    if not 0 <= number <= most:
        raise InvalidInput(
            f"islands of {len(island)} and {len(other)} peers cannot be joined by {number} bridges: "
            f"set topology.bridges to a number from 0 to {most}"
        )
    cycle = math.lcm(len(island), len(other))  # steps after which the same two peers would be joined again
    for step in range(number):
        yield island[-1 - step % len(island)], other[(step + step // cycle) % len(other)]
