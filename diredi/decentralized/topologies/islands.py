"""Groups in which everybody knows everybody, and few or none know somebody outside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import TopologyRecipe
from diredi.errors import InvalidInput

Island = Sequence[int]


def islands(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Peers that follow each other share an island; where they cannot be equally large, the first have one more.

    Islands stand in a ring, each next to the one before and the one after, and `bridges` edges join each two that are
    next to each other. Those edges start and end at different peers for as long as there are others left.
    """
    if not 1 <= recipe.islands <= peers:
        raise InvalidInput(
            f"{peers} peers cannot be {recipe.islands} islands: set topology.islands to a number from 1 to {peers}"
        )
    groups = [group.tolist() for group in np.array_split(np.arange(peers), recipe.islands)]
    graph = nx.disjoint_union_all(nx.complete_graph(len(group)) for group in groups)
    for one, next_one in _neighbouring(groups):
        graph.add_edges_from(_bridges(one, next_one, recipe.bridges))
    return graph


def _neighbouring(groups: Sequence[Island]) -> list[tuple[Island, Island]]:
    pairs = list(zip(groups, [*groups[1:], groups[0]], strict=True))
    return pairs if len(groups) > 2 else pairs[:-1]


def _bridges(one: Island, other: Island, number: int) -> Iterator[tuple[int, int]]:
    """The first starts at the last of `one` and ends at the first of `other`; both then move on by a peer."""
    most = len(one) * len(other)
    if not 0 <= number <= most:
        raise InvalidInput(
            f"islands of {len(one)} and {len(other)} peers cannot be joined by {number} bridges: "
            f"set topology.bridges to a number from 0 to {most}"
        )
    together = math.lcm(len(one), len(other))  # steps after which the same two would meet again
    for step in range(number):
        yield one[-1 - step % len(one)], other[(step + step // together) % len(other)]
