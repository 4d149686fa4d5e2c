"""Islands: fully connected groups of peers, joined by few edges or none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import TopologyRecipe
from diredi.errors import InvalidInput

Island = Sequence[int]


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
