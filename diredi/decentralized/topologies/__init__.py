"""Topologies: the graph of which peers are neighbours. Neighbours learn from each other. No torch.

    round_1 = graph(TopologyRecipe(kind="ring"), peers=8, round_=1, seed=0)
    neighbours(round_1, 0)  # [1, 7]

To add a topology, write a `Topology` in a file beside this one and add a line to TOPOLOGIES. That connectivity matters,
and trades the pace of learning against its result, is from "Decentralized edge learning: A comparative study of
distillation strategies and dissimilarity measures", FGCS 176, 2025; graphs that change with time, e_t(k), are from
"Decentralized Learning with Multi-Headed Distillation", CVPR 2023.
"""

from __future__ import annotations

from typing import Final

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import Topology, TopologyRecipe
from diredi.decentralized.topologies.deterministic import complete, edges, grid, islands, ring, star
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
    """Create the graph of a round.

    Without `recipe.changes` the graph is the same in every round. With it, random edges are drawn again in every round
    and the peers change places by a permutation of the round.

    Args:
        recipe: Kind and numbers of the graph.
        peers: Number of peers, 1 or more.
        round_: Number of the round, 0 or more.
        seed: 0 or more. Equal arguments give equal graphs.

    Returns:
        An undirected graph without self loops, with the nodes 0 to peers - 1. Some nodes may have no neighbours: those
        that "random" or "edges" leave out, and an island of one.

    Raises:
        InvalidInput: The kind is unknown, a number is out of range, or the recipe does not fit the number of peers. A
            recipe that is valid for one round is valid for all.
    """
    if recipe.kind not in TOPOLOGIES:
        raise InvalidInput(f"there is no topology {recipe.kind!r}: use {', '.join(sorted(TOPOLOGIES))}")
    if peers < 1:
        raise InvalidInput(f"{peers} peers have no topology: have 1 or more")
    if round_ < 0 or seed < 0:
        raise InvalidInput(f"round {round_} and seed {seed} draw no topology: count both from 0")
    random = np.random.default_rng([seed, _STREAM, round_ if recipe.changes else 0])
    drawn = TOPOLOGIES[recipe.kind](peers, recipe, random)
    places = random.permutation(peers).tolist() if recipe.changes else range(peers)
    placed = nx.empty_graph(peers)
    placed.add_edges_from((places[a], places[b]) for a, b in drawn.edges)
    return placed


def neighbours(graph: nx.Graph, peer: int) -> list[int]:
    """Return the neighbours of a peer, in rising order.

    Args:
        graph: The graph of a round.
        peer: Number of the peer, from 0.

    Raises:
        InvalidInput: The graph has no such peer.
    """
    if peer not in graph:
        raise InvalidInput(f"there is no peer {peer} among {len(graph)}: number them from 0 to {len(graph) - 1}")
    return sorted(graph[peer])
