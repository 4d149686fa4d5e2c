"""Who is a neighbour of whom: each learns from its neighbours and teaches them. No torch.

    round_1 = graph(TopologyRecipe(kind="ring"), peers=8, round_=1, seed=0)
    neighbours(round_1, 0)  # [1, 7]

A kind is one function in a file beside this one and one line in TOPOLOGIES. That connectivity matters, and trades the
pace of learning against what is learned, is from "Decentralized edge learning: A comparative study of distillation
strategies and dissimilarity measures", FGCS 176, 2025; that it may change with time, e_t(k), from "Decentralized
Learning with Multi-Headed Distillation", CVPR 2023.
"""

from __future__ import annotations

from typing import Final

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import Topology, TopologyRecipe
from diredi.decentralized.topologies.deterministic import complete, grid, ring, star
from diredi.decentralized.topologies.explicit import edges
from diredi.decentralized.topologies.islands import islands
from diredi.decentralized.topologies.random import erdos_renyi, regular
from diredi.errors import InvalidInput

TOPOLOGIES: Final[dict[str, Topology]] = {
    "complete": complete,
    "ring": ring,
    "star": star,
    "grid": grid,
    "islands": islands,
    "regular": regular,
    "random": erdos_renyi,
    "edges": edges,
}

__all__ = ["TOPOLOGIES", "Topology", "TopologyRecipe", "graph", "neighbours"]

_STREAM: Final = 0x746F706F
"""Keeps these draws apart from all others of the same seed."""


def graph(recipe: TopologyRecipe, peers: int, round_: int, seed: int) -> nx.Graph:
    """The graph of a round: nodes 0 to peers - 1 in this order, undirected, no self loops.

    Same arguments, same graph. Without `changes` the round is of no matter, and shapes keep the places that they say;
    with it, peers change places by a permutation that is the round's own. A recipe that is good for one round is good
    for all. Some peers may have no neighbours: those that "random" or "edges" leave out, and an island of one.

    Raises InvalidInput: an unknown kind, no peers, a number below 0, a recipe that these peers cannot follow.
    """
    if recipe.kind not in TOPOLOGIES:
        raise InvalidInput(f"there is no topology {recipe.kind!r}: use {', '.join(sorted(TOPOLOGIES))}")
    if peers < 1:
        raise InvalidInput(f"{peers} peers have no topology: have 1 or more")
    if round_ < 0 or seed < 0:
        raise InvalidInput(f"round {round_} and seed {seed} draw no topology: count both from 0")
    random = np.random.default_rng([seed, _STREAM, round_ if recipe.changes else 0])
    made = TOPOLOGIES[recipe.kind](peers, recipe, random)
    places = random.permutation(peers).tolist() if recipe.changes else range(peers)
    placed = nx.empty_graph(peers)
    placed.add_edges_from((places[a], places[b]) for a, b in made.edges)
    return placed


def neighbours(graph: nx.Graph, peer: int) -> list[int]:
    """From the lowest to the highest; empty for a peer that is alone. Raises InvalidInput for one that is not there."""
    if peer not in graph:
        raise InvalidInput(f"there is no peer {peer} among {len(graph)}: number them from 0 to {len(graph) - 1}")
    return sorted(graph[peer])
