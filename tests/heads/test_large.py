"""Beyond a stated size neighbours come from an index whose recall is measured, and rows are fitted part by part."""

from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from trees import cifake_files, write_folder

from toolkit.cache.embedding import embed_images, embed_prompts
from toolkit.cache.store import Cache
from toolkit.data.labels import Labels
from toolkit.data.sources import open_data
from toolkit.data.split import select
from toolkit.evaluation.grid import Settings
from toolkit.heads import layer_probes, partitioned, streamed
from toolkit.heads.base import unit, with_rare_classes
from toolkit.heads.knn import NearestNeighbours
from toolkit.heads.layer_probes import LayerProbes
from toolkit.heads.logreg import LogisticProbe
from toolkit.heads.stored import from_bytes, to_bytes
from toolkit.pipeline.compare import compare_split as compare


def clouds(count: int, seed: int = 0, dimension: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two labels in five clustered categories, as CLIP's vectors are."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(9).normal(size=(5, dimension)) + 2
    categories = rng.integers(0, 5, count)
    real = rng.integers(0, 2, count)
    X = centres[categories] + rng.normal(size=(count, dimension))
    X[:, 0] += 1.5 * real
    return X.astype(np.float32), np.array(["FAKE", "REAL"])[real], np.array(list("abcde"))[categories]


def cosines_by_hand(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def test_the_index_finds_the_share_of_exact_neighbours_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit(clouds(6000)[0]), unit(clouds(500, seed=1)[0])
    monkeypatch.setattr(partitioned, "MOST_LISTS", 0.5)
    made = partitioned.partition(vectors)
    assert made and made["recall"] >= partitioned.WANTED_RECALL and made["probes"] < len(made["centroids"]) / 2
    rows = partitioned.search(vectors, made, queries, 25)[1]
    exact = cosines_by_hand(vectors, queries, 25)
    found = np.mean([len(set(a) & set(b)) / 25 for a, b in zip(rows, exact, strict=True)])
    assert found == pytest.approx(made["recall"], abs=0.02)


def test_vectors_without_structure_are_searched_exhaustively_whatever_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    monkeypatch.setattr(partitioned, "EXACT_UP_TO", 100)
    head = NearestNeighbours().fit(X, np.array(["FAKE", "REAL"] * 1500))
    assert partitioned.partition(unit(X)) is None and "recall" not in head.choice_ and head.notes_ == []


def test_neighbours_of_other_folds_are_found_though_a_querys_own_lists_hold_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, _, groups = clouds(3000)
    monkeypatch.setattr(partitioned, "MOST_LISTS", 1.0)
    vectors, numbers = unit(X), np.unique(groups, return_inverse=True)[1]
    made = {**(partitioned.partition(vectors) or {}), "probes": 1}
    queries = np.arange(0, 3000, 50)
    similarities, rows = partitioned.search_outside_their_fold(vectors, made, numbers, queries, 5)
    assert (rows >= 0).all() and (numbers[rows] != numbers[queries][:, None]).all()
    assert np.allclose(similarities, np.einsum("qkd,qd->qk", vectors[rows], vectors[queries]), atol=1e-5)


def test_beyond_the_stated_size_knn_says_its_recall_and_predicts_what_exact_search_predicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y, groups = clouds(4000)
    new = clouds(600, seed=1)[0]
    exact = NearestNeighbours().fit(X, y, groups)
    monkeypatch.setattr(partitioned, "EXACT_UP_TO", 3999)
    monkeypatch.setattr(partitioned, "MOST_LISTS", 0.5)  # there are only 62
    large = NearestNeighbours().fit(X, y, groups)
    assert large.choice_["recall"] >= 0.98 and large.choice_["lists"] == 62 and "recall" not in exact.choice_
    (line,) = large.notes_
    assert "4,000 training images" in line and f"{large.choice_['recall']:.1%}" in line and exact.notes_ == []
    plain = KNeighborsClassifier(large.k_, metric="cosine", algorithm="brute").fit(X, y)
    assert np.mean(large.predict(new) == plain.predict(new)) > 0.99
    stored = from_bytes(to_bytes(large), "head")
    assert np.array_equal(stored.predict_proba(new), large.predict_proba(new))
    assert (large.choice_["k"], large.choice_["weighting"]) == (exact.choice_["k"], exact.choice_["weighting"])


def test_beyond_the_stated_size_logistic_scores_are_those_of_fitting_everything_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stated tolerance: 1e-4. The rows lie in a file that is mapped, and parts do not divide them evenly."""
    X, y, groups = clouds(5000)
    new = clouds(600, seed=1)[0]
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    monkeypatch.setattr(streamed, "MOST_VALUES", X.size - 1)
    monkeypatch.setattr(streamed, "SAMPLE", 2000)
    monkeypatch.setattr(streamed, "ROWS_AT_ONCE", 999)
    large = LogisticProbe().fit(mapped, y, groups)
    assert large.choice_["chosen_on"] == 2000 and "5,000 training images" in large.notes_[0]
    plain = LogisticRegression(C=large.choice_["C"], max_iter=10_000, tol=1e-10).fit(unit(X).astype(np.float64), y)
    assert np.allclose(large.predict_proba(new), plain.predict_proba(unit(new).astype(np.float64)), atol=1e-4)
    assert clone(large).fit(X[:400], y[:400], groups[:400]).notes_ == []


@pytest.mark.parametrize("labels", [["FAKE", "REAL"], ["FAKE", "RARE", "REAL"]], ids=len)
@pytest.mark.parametrize("kind", [LogisticProbe, LayerProbes])
def test_a_rare_label_is_learned_though_random_rows_would_lack_it(
    kind: type, labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count, rare = 1000, labels[1]
    y = np.resize([label for label in labels if label != rare], count)
    y[:6] = rare
    X = np.random.default_rng(0).normal(size=(count, 12)).astype(np.float32)
    for number, label in enumerate(labels):
        X[y == label, number] += 6
    monkeypatch.setattr(streamed, "MOST_VALUES", X.size - 1)
    monkeypatch.setattr(streamed, "SAMPLE", 30)
    monkeypatch.setattr(layer_probes, "MOST_ROWS", 30)
    head = kind().fit(X, y)
    assert head.classes_.tolist() == labels and 30 < head.choice_["chosen_on"] <= 35
    assert head.left_out_ is not None and head.choice_["by"] == "folds"
    assert (head.predict(X)[:6] == rare).all() and np.mean(head.predict(X) == y) > 0.95


@given(codes=st.lists(st.integers(0, 4), min_size=1, max_size=80), data=st.data())
def test_random_rows_are_kept_and_filled_up_to_five_of_each_label(codes: list[int], data: st.DataObject) -> None:
    every = np.array(codes)
    rows = data.draw(st.lists(st.integers(0, len(codes) - 1), min_size=1, unique=True))
    found = with_rare_classes(np.array(rows), every)
    assert found.tolist() == sorted(set(found)) and set(rows) <= set(found)
    for code in set(codes):
        drawn = int((every[rows] == code).sum())
        assert (every[found] == code).sum() == max(drawn, min(5, codes.count(code)))


@pytest.mark.parametrize("strength", [0.1, 3000.0])
def test_solving_part_by_part_ends_at_the_optimum_from_anywhere(strength: float) -> None:
    X, y, _ = clouds(1500)
    plain = LogisticRegression(C=strength, max_iter=10_000, tol=1e-12).fit(unit(X).astype(np.float64), y)
    for start in (np.zeros(25), np.random.default_rng(0).normal(size=25) * 30):
        weights = streamed.solve(X, y == "REAL", strength, start)
        assert np.allclose(weights, [*plain.coef_[0], *plain.intercept_], atol=2e-3 * np.abs(weights).max())


def test_a_comparison_tells_which_heads_were_fitted_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_data(write_folder(tmp_path / "cifake", cifake_files(60, 6)))
    selection, encoder = select(dataset, "cat", 120, 5), FakeEncoder()
    cache = Cache(tmp_path / "cache", encoder.record)
    embed_images(dataset, selection.rows(), lambda: encoder, cache)
    embed_prompts(["fake", "real"], lambda: encoder, cache)
    settings = Settings("made", Labels.of(["FAKE", "REAL"]), {"FAKE": ["fake"], "REAL": ["real"]}, ("logreg", "knn"))
    assert compare(selection, [cache], settings).notes() == []
    monkeypatch.setattr(partitioned, "EXACT_UP_TO", 199)
    monkeypatch.setattr(partitioned, "MOST_LISTS", 1.0)
    monkeypatch.setattr(streamed, "MOST_VALUES", 200 * 16)
    logreg, knn = compare(selection, [cache], settings).notes()
    assert logreg == "logreg: 240 training images are fitted part by part; C was chosen on 200 of them."
    assert knn.startswith("knn: 240 training images are more than 199, so neighbours come from an IVF index")
