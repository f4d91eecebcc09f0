"""Neighbours are those of an exhaustive search, whatever a search left out before."""

import numpy as np
import pytest

from toolkit.heads import neighbours
from toolkit.heads.base import unit
from toolkit.heads.neighbours import Memory, nearest, remembering, search, search_outside_their_fold


def clusters(count: int, seed: int = 0, dimension: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in four clusters, most neighbours being of the same one."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 4, count)
    centres = np.random.default_rng(9).normal(size=(4, dimension))
    return unit(3 * centres[numbers] + rng.normal(size=(count, dimension))), numbers


def by_hand(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    cosines = queries @ vectors.T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, rows, axis=1), rows


@pytest.mark.parametrize("few_folds", [0, 32])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_neighbours_outside_a_querys_own_cluster(k: int, few_folds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "FEW_FOLDS", few_folds)
    vectors, numbers = clusters(400)
    queries = np.arange(0, 400, 3)
    cosines, rows = search_outside_their_fold(vectors, numbers, queries, k)
    for place, query in enumerate(queries):
        others = np.flatnonzero(numbers != numbers[query])
        expected = by_hand(vectors[others], vectors[[query]], k)
        assert np.allclose(cosines[place], expected[0][0], atol=1e-5)
        assert set(rows[place]) == set(others[expected[1][0]])


@pytest.mark.parametrize("k", [1, 7, 150])
def test_a_memory_finds_what_an_exhaustive_search_finds_with_each_cluster_left_out_in_turn(k: int) -> None:
    vectors, numbers = clusters(900)
    asked, of = clusters(200, seed=1)
    memory = Memory()
    for number in (2, 0, 1, 3, 2):
        kept = vectors[numbers != number]
        for queries in (asked[of != number], asked[of == number]):
            cosines, rows = memory.search(kept, queries, k)
            expected = by_hand(kept, queries, k)
            assert np.allclose(cosines, expected[0], atol=1e-5)
            assert np.mean(rows == expected[1]) > 0.999


def test_a_memory_keeps_equal_vectors_apart() -> None:
    vectors = unit(np.repeat(np.eye(3), 4, axis=0))
    memory = Memory()
    for kept in (vectors[:8], vectors[4:], vectors[::2]):
        cosines, rows = memory.search(kept, vectors[:1], 4)
        assert cosines.tolist() == search(kept, vectors[:1], 4)[0].tolist()
        assert len(set(rows[0])) == 4


def test_what_was_found_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, numbers = clusters(1000)
    asked, of = clusters(300, seed=1)
    products = []

    def counted(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        products.append(len(vectors) * len(queries))
        return search(vectors, queries, k)

    monkeypatch.setattr(neighbours, "search", counted)
    memory = Memory()
    for number in range(4):
        memory.search(vectors[numbers != number], asked[of != number], 5)
    assert sum(products) <= 1.01 * len(vectors) * len(asked)


def test_memories_belong_to_their_owner_and_end_with_the_block() -> None:
    vectors, _ = clusters(50)

    class Owner:
        pass

    one, other = Owner(), Owner()
    for owner in (one, other, one):
        with remembering(owner):
            assert np.allclose(nearest(vectors, vectors[:5], 3)[0], search(vectors, vectors[:5], 3)[0], atol=1e-5)
    assert len(neighbours._MEMORIES[one].vectors) == len(neighbours._MEMORIES[other].vectors) == 50
    assert neighbours._MEMORY.get() is None
    del one, owner
    assert len(neighbours._MEMORIES) == 1
