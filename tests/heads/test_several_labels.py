"""Every head tells more than two labels apart, as independent references do."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from toolkit.encoders.features import SIDE
from toolkit.heads import make_head, streamed
from toolkit.heads.base import unit
from toolkit.heads.cnn import SmallCNN
from toolkit.heads.logreg import LogisticProbe
from toolkit.heads.stored import from_bytes, to_bytes

LABELS = np.array(["ant", "bee", "cow", "doe"])


def clouds(count: int, seed: int = 0, dimension: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping clouds of four labels, which no category divides."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(count) % 4)
    X = 1.2 * np.eye(4, dimension)[codes] + rng.normal(size=(count, dimension)) / 2 + 1
    return X.astype(np.float32), LABELS[codes], np.array(list("xyz"))[rng.integers(0, 3, count)]


@pytest.mark.parametrize("choose_by", ["category", "folds"])
@pytest.mark.parametrize("name", ["zero-shot", "logreg", "layer-probes", "knn", "shortcut"])
def test_a_kept_head_gives_each_labels_share_as_before(name: str, choose_by: str) -> None:
    X, y, groups = clouds(160)
    prompts = {label: np.eye(4, 16, dtype=np.float32)[[number]] for number, label in enumerate(LABELS)}
    head = make_head(name, prompts, choose_by).fit(X, y, groups)
    odds = head.predict_proba(X)
    assert head.classes_.tolist() == LABELS.tolist() and odds.shape == (160, 4)
    assert np.allclose(odds.sum(axis=1), 1) and (head.predict(X) == LABELS[odds.argmax(axis=1)]).all()
    assert np.mean(head.predict(X) == y) > 0.5
    if name != "shortcut":  # which looks at no picture, and so answers for none
        assert np.allclose(from_bytes(to_bytes(head), "head").predict_proba(X), odds, rtol=1e-9)


def test_neighbours_vote_as_scikit_learns_do() -> None:
    X, y, groups = clouds(400)
    new = clouds(50, seed=1)[0]
    head = make_head("knn", {}, "category").fit(X, y, groups)
    weight = (lambda d: np.exp(-d / 0.07)) if head.weighting_ == "similarity" else "uniform"
    plain = KNeighborsClassifier(head.k_, weights=weight, metric="cosine").fit(unit(X).astype(np.float64), y)
    shares = (head.k_ * plain.predict_proba(unit(new).astype(np.float64)) + 1 / 4) / (head.k_ + 1)
    assert np.allclose(head.predict_proba(new), shares, atol=1e-4)


def test_zero_shot_is_the_softmax_of_the_cosines_to_the_mean_of_a_labels_prompts() -> None:
    rng = np.random.default_rng(0)
    prompts = {str(label): rng.normal(size=(3, 16)).astype(np.float32) for label in LABELS}
    X = rng.normal(size=(20, 16)).astype(np.float32)
    head = make_head("zero-shot", prompts, choice={"temperature": 0.02, "margin": 0.0}).fit(X, LABELS[[0] * 20])
    means = unit(np.stack([unit(prompts[label]).mean(axis=0) for label in sorted(prompts)]))
    powers = np.exp(unit(X) @ means.T / 0.02)
    assert np.allclose(head.predict_proba(X), powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    with pytest.raises(ValueError, match="two classes, not 4"):
        make_head("zero-shot", prompts, choice={"margin": 0.1}).fit(X, LABELS[[0] * 20])


def test_beyond_the_stated_size_the_scores_are_those_of_fitting_everything_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y, groups = clouds(1500)
    new = clouds(100, seed=1)[0]
    monkeypatch.setattr(streamed, "MOST_VALUES", X.size - 1)
    monkeypatch.setattr(streamed, "SAMPLE", 600)
    monkeypatch.setattr(streamed, "ROWS_AT_ONCE", 499)
    large = LogisticProbe().fit(X, y, groups)
    assert large.choice_["chosen_on"] == 600 and large.notes_
    plain = LogisticRegression(C=large.choice_["C"], max_iter=10_000, tol=1e-10).fit(unit(X).astype(np.float64), y)
    assert np.allclose(large.predict_proba(new), plain.predict_proba(unit(new).astype(np.float64)), atol=1e-3)


def test_the_small_network_learns_three_colours() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(96) % 3
    X = rng.uniform(0, 80, (96, 3, SIDE, SIDE)) + 120 * np.eye(3)[codes][:, :, None, None]
    X, y = X.reshape(96, -1).astype(np.float32), LABELS[codes]
    head = SmallCNN("folds", most_epochs=3).fit(X[:72], y[:72])
    odds = head.predict_proba(X[72:])
    assert odds.shape == (24, 3) and np.allclose(odds.sum(axis=1), 1)
    assert np.mean(head.predict(X[72:]) == y[72:]) > 0.9
