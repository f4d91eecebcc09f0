"""Linear probes on blocks, weighed by left-out categories: against scikit-learn and scipy, and what they learn."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from toolkit.heads import make_head
from toolkit.heads.layer_probes import PULL, LayerProbes
from toolkit.heads.stored import from_bytes, to_bytes

WIDTHS = (6, 10, 4)
SHORT = (1.0, 10.0, 100.0)


def tokens(count: int, seed: int = 0, labels: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three blocks of `WIDTHS`: the first knows a little of the label, the second more, the third but the category."""
    rng = np.random.default_rng(seed)
    codes, groups = rng.integers(0, labels, count), rng.integers(0, 4, count)
    X = rng.normal(size=(count, sum(WIDTHS))) + np.linspace(-2, 2, sum(WIDTHS))
    X[:, 0] += 0.7 * codes
    X[:, 7] += 1.2 * codes
    X[np.arange(count), 16 + groups] += 3
    return X.astype(np.float32), np.array(["A", "B", "C"])[codes], np.array(["bird", "cat", "dog", "frog"])[groups]


def parts(X: np.ndarray) -> list[np.ndarray]:
    blocks = np.split(X.astype(np.float64), np.cumsum(WIDTHS)[:-1], axis=1)
    return [block / np.linalg.norm(block, axis=1, keepdims=True) for block in blocks]


def plain(C: float) -> object:
    """scikit-learn's own: columns of variance 1, then a logistic regression on rows of mean squared length 1."""
    shrink = FunctionTransformer(lambda Z: Z / np.sqrt(Z.shape[1]))
    return make_pipeline(StandardScaler(), shrink, LogisticRegression(C=C, max_iter=10_000, tol=1e-10))


def log_odds(model: object, X: np.ndarray) -> np.ndarray:
    found = model.decision_function(X)  # type: ignore[attr-defined]
    return found if found.ndim == 2 else np.stack([np.zeros(len(found)), found], axis=1)


def by_hand(X: np.ndarray, y: np.ndarray, groups: np.ndarray, new: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Each block's C, and the probabilities of `new`: a loop over blocks, C and categories, without any shortcut."""
    codes, chosen, held_out = np.unique(y, return_inverse=True)[1], [], []
    for block in parts(X):
        losses, logits = [], []
        for C in SHORT:
            said, per_category = np.zeros((len(y), codes.max() + 1)), []
            for one in np.unique(groups):
                out = groups == one
                said[out] = log_odds(plain(C).fit(block[~out], codes[~out]), block[out])  # type: ignore[attr-defined]
                per_category.append(-log_softmax(said[out], axis=1)[np.arange(out.sum()), codes[out]].mean())
            losses.append(np.mean(per_category))
            logits.append(said)
        chosen.append(SHORT[int(np.argmin(losses))])
        held_out.append(logits[int(np.argmin(losses))])

    def objective(both: np.ndarray) -> float:
        weights, bias = both[:3], np.append(0, both[3:])
        loss = -log_softmax(np.tensordot(weights, held_out, axes=1) + bias, axis=1)[np.arange(len(y)), codes].mean()
        return float(loss + PULL / 2 * ((weights - 1 / 3) ** 2).sum())

    start = np.append(np.full(3, 1 / 3), np.zeros(codes.max()))
    bounds = [(0, None)] * 3 + [(None, None)] * codes.max()
    best = minimize(objective, start, method="SLSQP", bounds=bounds, options={"ftol": 1e-12, "maxiter": 1000}).x
    fitted = [plain(C).fit(block, codes) for C, block in zip(chosen, parts(X), strict=True)]  # type: ignore[attr-defined]
    added = sum(w * log_odds(one, block) for w, one, block in zip(best, fitted, parts(new), strict=False))
    return chosen, softmax(added + np.append(0, best[3:]), axis=1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_it_passes_scikit_learns_own_checks() -> None:
    check_estimator(LayerProbes())


@pytest.mark.parametrize("labels", [2, 3])
def test_probabilities_are_those_of_plain_scikit_learn_and_scipy(labels: int) -> None:
    X, y, groups = tokens(300, labels=labels)
    new = tokens(50, seed=1)[0]
    head = LayerProbes(WIDTHS, grid=SHORT).fit(X, y, groups)
    chosen, expected = by_hand(X, y, groups, new)
    assert head.choice_["C"] == chosen and head.choice_["by"] == "category"
    assert np.allclose(head.predict_proba(new), expected, atol=5e-3)


def test_a_block_that_knows_the_label_inside_each_category_alone_is_not_believed() -> None:
    """Its probe is right about the categories that it was fitted on, and wrong about any other."""
    rng = np.random.default_rng(0)
    y, groups = np.array(["FAKE", "REAL"] * 300), rng.integers(0, 6, 600)
    sign = np.where(y == "REAL", 1.0, -1.0)
    honest, by_heart = rng.normal(size=(600, 8)), 0.3 * rng.normal(size=(600, 8))
    honest[:, 0] += sign
    by_heart[np.arange(600), groups] += 4 + 2 * sign * np.where(groups % 2, 1, -1)
    by_heart[:, 7] += sign * np.where(groups < 3, 1, -1)  # without one category, the others' majority says the wrong
    X = np.concatenate([honest, by_heart], axis=1).astype(np.float32)
    by_category = LayerProbes((8, 8), "category").fit(X, y, groups.astype(str))
    by_folds = LayerProbes((8, 8), "folds").fit(X, y, groups.astype(str))
    assert by_category.weights_[1] < 0.25 < by_folds.weights_[1]


def test_the_length_of_no_block_changes_anything() -> None:
    X, y, groups = tokens(150)
    scaled = X * np.repeat([3.0, 0.1, 7.0], WIDTHS).astype(np.float32)
    odds = [LayerProbes(WIDTHS).fit(one, y, groups).predict_proba(one) for one in (X, scaled)]
    assert np.allclose(*odds, atol=1e-3)


def test_what_is_said_of_an_image_does_not_hang_on_the_others_that_are_asked() -> None:
    X, y, groups = tokens(200)
    head = LayerProbes(WIDTHS).fit(X[:150], y[:150], groups[:150])
    alone = np.concatenate([head.predict_proba(X[row : row + 1]) for row in range(150, 200)])
    assert np.allclose(head.predict_proba(X[150:]), alone, rtol=1e-5, atol=1e-6)


def test_a_stored_head_says_the_same() -> None:
    X, y, groups = tokens(120)
    head = make_head("layer-probes", {}, blocks=WIDTHS).fit(X, y, groups)
    again = from_bytes(to_bytes(head), "head")
    assert np.array_equal(again.predict_proba(X), head.predict_proba(X)) and again.choice_ == head.choice_


def test_c_at_the_edge_of_the_grid_is_in_the_choice() -> None:
    X, y, groups = tokens(200)
    X = X[:, :16]  # without the block that knows nothing of the label, for which the least C is right
    at_edge = LayerProbes((6, 10), grid=(1e-4, 1e-3)).fit(X, y, groups).choice_["at_edge"]
    assert at_edge == ["block 1: C = 0.001", "block 2: C = 0.001"]
    assert "at_edge" not in LayerProbes((6, 10), grid=(1e-4, *SHORT, 1e5)).fit(X, y, groups).choice_


def test_blocks_must_make_up_the_vector() -> None:
    X, y, _ = tokens(50)
    with pytest.raises(ValueError, match="do not make 20 columns"):
        LayerProbes((6, 6)).fit(X, y)


def test_inside_the_real_tower_it_finds_what_the_last_layer_dropped(shared: Path) -> None:
    """Three of the twelve blocks and half of the images, so that the test is short."""
    data = np.load(shared / "clip-vit-b16-cifake-blocks.npz")
    last = np.load(shared / "clip-vit-b16-cifake.npz")
    X = data["blocks"][:, [5, 7, 9]].astype(np.float32).reshape(len(data["y"]), -1)
    train, cats = np.flatnonzero(data["set"] == "train")[::2], data["set"] == "cat"
    head = make_head("layer-probes", {}, blocks=(768,) * 3).fit(X[train], data["y"][train], data["c"][train])
    usual = make_head("logreg", {}).fit(last["train_x"], last["train_y"], last["train_c"])
    assert head.score(X[cats], data["y"][cats]) > usual.score(last["cat_x"], last["cat_y"])
