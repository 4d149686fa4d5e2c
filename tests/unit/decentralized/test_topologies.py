"""Who is a neighbour of whom: a contract over every kind, what each one promises, and what no graph can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diredi.decentralized.topologies import TOPOLOGIES, TopologyRecipe, graph, neighbours
from diredi.errors import InvalidInput

PEERS = 8
RECIPES = {
    "islands": TopologyRecipe(kind="islands", islands=3, bridges=1),
    "regular": TopologyRecipe(kind="regular", degree=3),
    "random": TopologyRecipe(kind="random", probability=0.4),
    "edges": TopologyRecipe(kind="edges", edges=((0, 1), (2, 1), (1, 2), (7, 3))),
}
"""Where the kind alone does not say enough."""


@pytest.fixture(params=sorted(TOPOLOGIES))
def recipe(request: pytest.FixtureRequest) -> TopologyRecipe:
    return RECIPES.get(request.param, TopologyRecipe(kind=request.param))


def changing(recipe: TopologyRecipe) -> TopologyRecipe:
    return recipe.model_copy(update={"changes": True})


def edges_of(found: nx.Graph) -> set[tuple[int, int]]:
    return {(min(edge), max(edge)) for edge in found.edges}


def shape(kind: str, peers: int, **options: object) -> nx.Graph:
    return graph(TopologyRecipe.of({"kind": kind, **options}), peers, 0, 0)


def degrees(found: nx.Graph) -> list[int]:
    return sorted(degree for _, degree in found.degree)


# --- the contract


@pytest.mark.parametrize("changes", [False, True])
def test_a_topology_is_a_simple_graph_of_the_peers_in_order(recipe: TopologyRecipe, changes: bool) -> None:
    for round_ in range(3):
        found = graph(recipe.model_copy(update={"changes": changes}), PEERS, round_, seed=5)
        assert list(found.nodes) == list(range(PEERS))
        assert not found.is_directed()
        assert not found.is_multigraph()
        assert nx.number_of_selfloops(found) == 0


@pytest.mark.parametrize("changes", [False, True])
def test_neighbours_are_sorted_numbers_and_each_other_s(recipe: TopologyRecipe, changes: bool) -> None:
    found = graph(recipe.model_copy(update={"changes": changes}), PEERS, 1, seed=5)
    lists = [neighbours(found, peer) for peer in range(PEERS)]
    assert json.loads(json.dumps(lists)) == [sorted(one) for one in lists]
    assert all(peer in lists[other] for peer in range(PEERS) for other in lists[peer])
    assert sum(map(len, lists)) == 2 * found.number_of_edges() > 0


def test_equal_seeds_and_rounds_give_equal_graphs(recipe: TopologyRecipe) -> None:
    for one in (recipe, changing(recipe)):
        first, second = graph(one, PEERS, 3, seed=5), graph(one, PEERS, 3, seed=5)
        assert edges_of(first) == edges_of(second)


def test_without_changes_the_round_is_of_no_matter(recipe: TopologyRecipe) -> None:
    assert all(edges_of(graph(recipe, PEERS, r, 5)) == edges_of(graph(recipe, PEERS, 0, 5)) for r in range(1, 6))


def test_with_changes_rounds_differ_unless_everybody_knows_everybody(recipe: TopologyRecipe) -> None:
    rounds = {frozenset(edges_of(graph(changing(recipe), PEERS, round_, 5))) for round_ in range(6)}
    assert len(rounds) == 1 if recipe.kind == "complete" else len(rounds) > 1


def test_changes_depend_on_the_seed(recipe: TopologyRecipe) -> None:
    ours, theirs = ([edges_of(graph(changing(recipe), PEERS, r, seed)) for r in range(6)] for seed in (5, 6))
    assert (ours == theirs) is (recipe.kind == "complete")


@pytest.mark.parametrize("kind", sorted(TOPOLOGIES.keys() - {"random", "regular"}))
def test_with_changes_a_shape_stays_and_the_peers_change_places(kind: str) -> None:
    recipe = RECIPES.get(kind, TopologyRecipe(kind=kind))
    still = graph(recipe, PEERS, 0, 5)
    assert all(nx.is_isomorphic(still, graph(changing(recipe), PEERS, round_, 5)) for round_ in range(4))


@pytest.mark.parametrize("kind", sorted(TOPOLOGIES.keys() - {"regular", "islands", "edges"}))
def test_one_peer_alone_is_a_topology_without_edges(kind: str) -> None:
    found = shape(kind, 1)
    assert (list(found.nodes), list(found.edges), neighbours(found, 0)) == ([0], [], [])


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(["complete", "ring", "star", "grid"]), peers=st.integers(2, 40))
def test_shapes_are_connected_for_every_number_of_peers(kind: str, peers: int) -> None:
    found = shape(kind, peers)
    assert list(found.nodes) == list(range(peers))
    assert nx.is_connected(found)


def test_topologies_are_had_without_torch() -> None:
    program = "import diredi.decentralized.topologies, sys; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


# --- what each kind promises


@pytest.mark.parametrize("peers", [2, 3, 8])
def test_in_a_complete_graph_everybody_knows_all_others(peers: int) -> None:
    found = shape("complete", peers)
    assert found.number_of_edges() == peers * (peers - 1) // 2
    assert neighbours(found, 1) == [0, *range(2, peers)]


def test_in_a_ring_everybody_has_the_one_before_and_the_one_after() -> None:
    found = shape("ring", 8)
    assert all(neighbours(found, peer) == sorted({(peer - 1) % 8, (peer + 1) % 8}) for peer in range(8))
    assert edges_of(shape("ring", 2)) == {(0, 1)}


def test_in_a_star_all_have_peer_0_alone() -> None:
    found = shape("star", 6)
    assert neighbours(found, 0) == [1, 2, 3, 4, 5]
    assert all(neighbours(found, peer) == [0] for peer in range(1, 6))


def test_a_changing_star_has_another_centre_now_and_then() -> None:
    recipe = TopologyRecipe(kind="star", changes=True)
    centres = [max(graph(recipe, 6, round_, 1).degree, key=lambda pair: pair[1])[0] for round_ in range(40)]
    assert set(centres) == set(range(6))


def test_six_peers_make_a_grid_of_two_rows() -> None:
    assert edges_of(shape("grid", 6)) == {(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)}


@pytest.mark.parametrize(("peers", "rows"), [(4, 2), (8, 2), (9, 3), (12, 3), (14, 2), (16, 4), (36, 6)])
def test_a_grid_is_the_rectangle_that_is_most_nearly_square(peers: int, rows: int) -> None:
    columns = peers // rows
    found = shape("grid", peers)
    assert found.number_of_edges() == rows * (columns - 1) + columns * (rows - 1)
    assert nx.is_isomorphic(found, nx.grid_2d_graph(rows, columns))


@pytest.mark.parametrize("peers", [2, 3, 7, 13])
def test_a_prime_number_of_peers_makes_a_path(peers: int) -> None:
    assert edges_of(shape("grid", peers)) == {(peer, peer + 1) for peer in range(peers - 1)}


@pytest.mark.parametrize(
    ("peers", "number", "groups"),
    [
        (8, 2, [{0, 1, 2, 3}, {4, 5, 6, 7}]),
        (8, 3, [{0, 1, 2}, {3, 4, 5}, {6, 7}]),
        (3, 3, [{0}, {1}, {2}]),
        (4, 1, [{0, 1, 2, 3}]),
    ],
)
def test_islands_are_complete_and_apart(peers: int, number: int, groups: list[set[int]]) -> None:
    found = shape("islands", peers, islands=number)
    assert list(nx.connected_components(found)) == groups
    assert found.number_of_edges() == sum(len(group) * (len(group) - 1) // 2 for group in groups)


@pytest.mark.parametrize(
    ("number", "bridges", "joining"),
    [
        (2, 1, {(5, 6)}),
        (2, 3, {(5, 6), (4, 7), (3, 8)}),
        (3, 1, {(3, 4), (7, 8), (0, 11)}),
        (4, 1, {(2, 3), (5, 6), (8, 9), (0, 11)}),
    ],
)
def test_bridges_join_islands_that_are_next_to_each_other_in_a_ring(
    number: int, bridges: int, joining: set[tuple[int, int]]
) -> None:
    apart = edges_of(shape("islands", 12, islands=number))
    joined = shape("islands", 12, islands=number, bridges=bridges)
    assert edges_of(joined) - apart == joining
    assert nx.is_connected(joined)


@pytest.mark.parametrize("peers", [4, 5, 8, 9])
def test_the_most_bridges_make_two_islands_one(peers: int) -> None:
    most = (peers // 2) * (peers - peers // 2)
    for bridges in range(most + 1):
        found = shape("islands", peers, islands=2, bridges=bridges)
        assert found.number_of_edges() == shape("islands", peers).number_of_edges() + bridges
    assert edges_of(found) == edges_of(shape("complete", peers))


@settings(deadline=None, max_examples=60)
@given(peers=st.integers(2, 30), data=st.data(), seed=st.integers(0, 2**31))
def test_in_a_regular_graph_everybody_has_as_many_neighbours(peers: int, data: st.DataObject, seed: int) -> None:
    degree = data.draw(st.integers(1, peers - 1).filter(lambda degree: degree * peers % 2 == 0))
    found = graph(TopologyRecipe(kind="regular", degree=degree), peers, 0, seed)
    assert degrees(found) == [degree] * peers


def test_a_random_graph_has_each_edge_with_its_probability() -> None:
    """200 graphs of 28 possible edges: within five standard deviations in all, and at every single edge."""
    recipe = TopologyRecipe(kind="random", probability=0.3, changes=True)
    rounds = [nx.to_numpy_array(graph(recipe, PEERS, round_, 7)) for round_ in range(200)]
    assert len({one.sum() for one in rounds}) > 5
    found = np.sum(rounds, axis=0)[np.triu_indices(PEERS, 1)]
    assert abs(found.sum() - 0.3 * 5600) < 5 * np.sqrt(5600 * 0.3 * 0.7)
    assert np.abs(found - 0.3 * 200).max() < 5 * np.sqrt(200 * 0.3 * 0.7)


def test_a_random_graph_may_leave_a_peer_alone() -> None:
    assert shape("random", PEERS, probability=0).number_of_edges() == 0
    assert edges_of(shape("random", PEERS, probability=1)) == edges_of(shape("complete", PEERS))
    lonely = [neighbours(graph(RECIPES["random"], 4, 0, seed), 0) for seed in range(40)]
    assert [] in lonely
    assert any(lonely)


def test_edges_are_those_that_are_named_and_whoever_is_not_named_is_alone() -> None:
    found = shape("edges", 5, edges=[[3, 0], [0, 3], [1, 0]])
    assert [neighbours(found, peer) for peer in range(5)] == [[1, 3], [0], [], [0], []]


# --- refusals


@pytest.mark.parametrize(
    ("peers", "options", "said"),
    [
        (8, {"kind": "torus"}, "no topology 'torus': use complete, edges, grid, islands, random, regular, ring, star"),
        (0, {"kind": "ring"}, "0 peers have no topology: have 1 or more"),
        (-3, {"kind": "complete"}, "-3 peers have no topology"),
        (5, {"kind": "regular", "degree": 3}, "5 times 3 is odd: change topology.degree or the number of peers"),
        (4, {"kind": "regular", "degree": 4}, "a peer among 4 has no 4 others as neighbours: lower"),
        (3, {"kind": "regular", "degree": 5}, "a peer among 3 has no 5 others"),
        (4, {"kind": "regular", "degree": 0}, "topology.degree is 0, which leaves every peer alone: set it to 1"),
        (
            4,
            {"kind": "edges", "edges": [(0, 1), (2, 4)]},
            "joins 2 and 4, and there are 4 peers: number them from 0 to 3",
        ),
        (4, {"kind": "edges", "edges": [(-1, 2)]}, "joins -1 and 2"),
        (4, {"kind": "edges", "edges": [(2, 2)]}, "joins peer 2 to itself: leave that edge out"),
        (4, {"kind": "edges"}, "names no edge: list pairs of peers"),
        (
            4,
            {"kind": "islands", "islands": 5},
            "4 peers cannot be 5 islands: set topology.islands to a number from 1 to 4",
        ),
        (4, {"kind": "islands", "islands": 0}, "4 peers cannot be 0 islands"),
        (
            5,
            {"kind": "islands", "bridges": 7},
            "islands of 3 and 2 peers cannot be joined by 7 bridges: .* from 0 to 6",
        ),
        (4, {"kind": "islands", "bridges": -1}, "cannot be joined by -1 bridges"),
        (4, {"kind": "random", "probability": 1.01}, "topology.probability is 1.01: set it to a number from 0 to 1"),
        (4, {"kind": "random", "probability": -0.5}, "topology.probability is -0.5"),
        (4, {"kind": "random", "probability": float("nan")}, "probability: Input should be a finite number"),
    ],
)
@pytest.mark.parametrize("changes", [False, True])
def test_what_no_graph_can_be_is_refused_in_a_sentence(
    peers: int, options: dict[str, object], said: str, changes: bool
) -> None:
    with pytest.raises(InvalidInput, match=said) as refusal:
        shape(peers=peers, changes=changes, **options)
    assert "\n" not in str(refusal.value)
    assert ": " in str(refusal.value)


@pytest.mark.parametrize(("round_", "seed"), [(-1, 0), (0, -1)])
def test_a_round_or_a_seed_below_0_is_refused(round_: int, seed: int) -> None:
    with pytest.raises(InvalidInput, match="count both from 0"):
        graph(TopologyRecipe(kind="random"), 4, round_, seed)


@pytest.mark.parametrize("peer", [-1, 4])
def test_the_neighbours_of_nobody_are_refused(peer: int) -> None:
    with pytest.raises(InvalidInput, match=f"no peer {peer} among 4: number them from 0 to 3"):
        neighbours(shape("ring", 4), peer)
