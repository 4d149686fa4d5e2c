"""Random topologies."""

from __future__ import annotations

import networkx as nx
import numpy as np

from diredi.decentralized.topologies.base import TopologyRecipe
from diredi.errors import InvalidInput


def regular(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Draw a random graph in which each peer has `recipe.degree` neighbours (Steger and Wormald, 1999).

    With a degree below 3 it is often not connected.
    """
    degree = recipe.degree
    if degree < 1:
        raise InvalidInput(f"topology.degree is {degree}, which leaves every peer alone: set it to 1 or more")
    if degree >= peers:
        raise InvalidInput(
            f"a peer among {peers} has no {degree} others as neighbours: lower topology.degree, or take more peers"
        )
    if degree * peers % 2:
        raise InvalidInput(
            f"{peers} peers cannot have {degree} neighbours each, for edges have two ends and {peers} times {degree} "
            "is odd: change topology.degree or the number of peers by one"
        )
    others = peers - 1 - degree
    if others < degree:  # drawing a dense graph nearly always fails; its complement is sparse
        return nx.complement(nx.random_regular_graph(others, peers, seed=random))
    return nx.random_regular_graph(degree, peers, seed=random)


def erdos_renyi(peers: int, recipe: TopologyRecipe, random: np.random.Generator) -> nx.Graph:
    """Draw each edge independently with `recipe.probability` (Gilbert, 1959; Erdos and Renyi, 1959).

    A peer without an edge learns alone for as long as the graph stays.
    """
    if not 0 <= recipe.probability <= 1:
        raise InvalidInput(f"topology.probability is {recipe.probability}: set it to a number from 0 to 1")
    return nx.gnp_random_graph(peers, recipe.probability, seed=random)
