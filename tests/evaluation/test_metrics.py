"""Metrics against independent references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from toolkit.evaluation.intervals import wilson
from toolkit.evaluation.metrics import mcnemar, summarise
from toolkit.evaluation.probabilities import auc_interval
from toolkit.evaluation.reliability import calibration_error, error_interval, expected_error

CLASSES = ["FAKE", "REAL"]


def answers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.array(CLASSES)[rng.integers(0, 2, count)]
    p = np.clip(0.3 * (y == "REAL") + 0.7 * rng.random(count), 0, 1).round(2)
    return y, np.where(p > 0.5, "REAL", "FAKE"), p


def both(p: np.ndarray) -> np.ndarray:
    """P(second) as the probabilities of both labels."""
    return np.stack([1 - p, p], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_scikit_learns(seed: int) -> None:
    y, predicted, p = answers(150, seed)
    rows = {row["class"]: row for row in summarise(y, predicted, both(p), CLASSES)}
    report = reference.classification_report(y, predicted, output_dict=True)
    for label, theirs in (("FAKE", "FAKE"), ("REAL", "REAL"), ("all", "macro avg")):
        for ours, name in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("support", "support"),
        ):
            assert rows[label][ours] == pytest.approx(report[theirs][name])
    row, positive = rows["all"], y == "REAL"
    assert row["accuracy"] == pytest.approx(report["accuracy"])
    assert row["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y, predicted))
    assert row["roc_auc"] == pytest.approx(reference.roc_auc_score(positive, p))
    assert row["average_precision"] == pytest.approx(reference.average_precision_score(positive, p))
    assert row["brier"] == pytest.approx(reference.brier_score_loss(positive, p))


def test_a_class_that_is_never_predicted_has_precision_zero_without_a_warning() -> None:
    y = np.array(["FAKE", "REAL"] * 100)
    rows = summarise(y, np.full(200, "FAKE"), both(np.zeros(200)), CLASSES)
    assert [(row["precision"], row["recall"]) for row in rows[:2]] == [(0.5, 1.0), (0.0, 0.0)]
    assert rows[1]["precision_low"] == 0.0 and rows[1]["precision_high"] == 1.0


def test_a_test_set_of_one_class_has_no_auc_and_raises_nothing() -> None:
    rows = summarise(np.full(10, "REAL"), np.full(10, "REAL"), both(np.full(10, 0.9)), CLASSES)
    assert np.isnan(rows[2]["roc_auc"]) and rows[2]["accuracy"] == 1.0


def many(labels: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """True and predicted labels, probabilities `[count, labels]`, and the labels, in an order that is not sorted."""
    rng = np.random.default_rng(seed)
    names = [f"label {number}" for number in rng.permutation(labels)]
    codes = np.concatenate([np.arange(labels), rng.integers(0, labels, count - labels)])
    odds = np.exp(rng.normal(size=(count, labels)) + 1.5 * np.eye(labels)[codes])
    odds /= odds.sum(axis=1, keepdims=True)
    return np.array(names)[codes], np.array(names)[odds.argmax(axis=1)], odds, names


@settings(max_examples=25, deadline=None)
@given(labels=st.integers(3, 9), count=st.integers(9, 120), seed=st.integers(0, 999))
def test_figures_of_many_labels_equal_scikit_learns(labels: int, count: int, seed: int) -> None:
    y, predicted, odds, names = many(labels, count, seed)
    rows = {row["class"]: row for row in summarise(y, predicted, odds, names)}
    row, order = rows["all"], np.argsort(names)
    by_name, sorted_names, one_hot = odds[:, order], sorted(names), y[:, None] == np.array(names)
    theirs = {
        "accuracy": reference.accuracy_score(y, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(y, predicted),
        "f1": reference.f1_score(y, predicted, average="macro"),
        "precision": reference.precision_score(y, predicted, average="macro", zero_division=0),
        "log_loss": reference.log_loss(y, by_name, labels=sorted_names),
        "roc_auc": reference.roc_auc_score(one_hot, odds, average="macro"),
        "average_precision": reference.average_precision_score(one_hot, odds, average="macro"),
        "brier": np.square(odds - one_hot).sum(axis=1).mean(),
    }
    assert {name: row[name] for name in theirs} == pytest.approx(theirs)
    for number, name in enumerate(names):
        assert rows[name]["roc_auc"] == pytest.approx(reference.roc_auc_score(y == name, odds[:, number]))
        assert rows[name]["average_precision"] == pytest.approx(
            reference.average_precision_score(y == name, odds[:, number])
        )
        assert rows[name]["recall"] == pytest.approx(reference.recall_score(y == name, predicted == name))
    if labels > 5:
        top = reference.top_k_accuracy_score(y, by_name, k=5, labels=sorted_names)
        assert row["top5_accuracy"] == pytest.approx(top)
    else:
        assert row["top5_accuracy"] is None


def test_calibration_of_many_labels_is_of_the_label_called_and_of_each_against_the_rest() -> None:
    y, predicted, odds, names = many(4, 200, 0)
    rows = {row["class"]: row for row in summarise(y, predicted, odds, names)}
    each = [calibration_error(y == name, odds[:, number]) for number, name in enumerate(names)]
    assert [rows[name]["calibration_error"] for name in names] == each
    assert rows["all"]["calibration_error"] == pytest.approx(np.mean(each))
    assert rows["all"]["top_calibration_error"] == calibration_error(y == predicted, odds.max(axis=1))


def test_intervals_of_aucs_against_the_rest_agree_with_a_plain_bootstrap() -> None:
    y, predicted, odds, names = many(4, 240, 1)
    rows = {row["class"]: row for row in summarise(y, predicted, odds, names)}
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        some = np.concatenate([rng.choice(np.flatnonzero(y == name), (y == name).sum()) for name in names])
        sides = [(odds[some, n][y[some] == name], odds[some, n][y[some] != name]) for n, name in enumerate(names)]
        drawn.append([(inside[:, None] > outside).mean() for inside, outside in sides])
    for name, areas in [(names[2], np.array(drawn)[:, 2]), ("all", np.mean(drawn, axis=1))]:
        low, high = np.percentile(areas, [2.5, 97.5])
        assert (rows[name]["roc_auc_low"], rows[name]["roc_auc_high"]) == pytest.approx((low, high), abs=0.015)
        assert rows[name]["roc_auc_low"] < rows[name]["roc_auc"] < rows[name]["roc_auc_high"]


def test_a_label_without_test_images_moves_no_mean() -> None:
    y, predicted, odds, names = many(5, 90, 2)
    kept = y != names[3]
    rows = {row["class"]: row for row in summarise(y[kept], predicted[kept], odds[kept], names)}
    assert rows[names[3]]["support"] == 0 and np.isnan(rows[names[3]]["roc_auc"])
    for name, column in (("recall", "balanced_accuracy"), ("f1", "f1"), ("roc_auc", "roc_auc")):
        there = [rows[one][name] for one in names if one != names[3]]
        assert rows["all"][column] == pytest.approx(np.mean(there))


@given(trials=st.integers(1, 5000), data=st.data())
def test_wilsons_interval_is_scipys_holds_the_share_and_shrinks(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    theirs = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (low, high) == (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9))
    assert 0 <= low <= successes / trials <= high <= 1
    wider = wilson(4 * successes, 4 * trials)
    assert wider[1] - wider[0] < high - low


def test_a_class_has_wilsons_interval_of_its_own_hits_and_accuracy_that_of_all() -> None:
    y, predicted, p = answers(180, 7)
    rows = {row["class"]: row for row in summarise(y, predicted, both(p), CLASSES)}
    for label in CLASSES:
        hits = int(((y == label) & (predicted == label)).sum())
        of = {"precision": (hits, int((predicted == label).sum())), "recall": (hits, int((y == label).sum()))}
        of["accuracy"] = (int((y == predicted).sum()), len(y))
        for name, (successes, trials) in of.items():
            theirs = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
            row = rows[label]
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemars_p_is_the_two_sided_binomial_one(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    expected = binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    p = np.array([0.95, 0.95, 0.95, 0.95, 0.1, 0.1])
    positive = np.array([True, True, True, False, False, True])
    assert calibration_error(positive, p) == pytest.approx((4 * 0.2 + 2 * 0.4) / 6)


def test_bootstrap_intervals_agree_with_a_plain_loop() -> None:
    y, predicted, p = answers(200, 3)
    row = summarise(y, predicted, both(p), CLASSES)[1]
    rng = np.random.default_rng(9)
    f1s, areas = [], []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(np.flatnonzero(y == label), (y == label).sum()) for label in CLASSES])
        f1s.append(reference.f1_score(y[rows], predicted[rows], pos_label="REAL"))
        areas.append(reference.roc_auc_score(y[rows] == "REAL", p[rows]))
    for name, values in (("f1", f1s), ("roc_auc", areas)):
        low, high = np.percentile(values, [2.5, 97.5])
        assert row[f"{name}_low"] == pytest.approx(low, abs=0.012)
        assert row[f"{name}_high"] == pytest.approx(high, abs=0.012)


def test_intervals_are_the_same_each_time() -> None:
    y, _, p = answers(100)
    assert auc_interval(y == "REAL", p, 0) == auc_interval(y == "REAL", p, 0) != auc_interval(y == "REAL", p, 1)


@pytest.mark.parametrize("labels", [2, 4])
def test_intervals_of_average_precision_and_brier_score_agree_with_a_plain_bootstrap(labels: int) -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(labels), 120)
    shares = rng.dirichlet(np.ones(labels), len(codes)) + 0.6 * np.eye(labels)[codes]
    shares /= shares.sum(axis=1, keepdims=True)
    names = [f"label {code}" for code in range(labels)]
    found = summarise(np.array(names)[codes], np.array(names)[shares.argmax(axis=1)], shares, names)[-1]

    def figures(rows: np.ndarray) -> tuple[float, float]:
        truth, p = np.eye(labels)[codes[rows]], shares[rows]
        errors = ((p - truth) ** 2).sum(axis=1).mean() / (2 if labels == 2 else 1)
        sides = [1] if labels == 2 else range(labels)
        return np.mean([reference.average_precision_score(truth[:, side], p[:, side]) for side in sides]), errors

    drawn = [
        figures(np.concatenate([rng.choice(np.flatnonzero(codes == code), 120) for code in range(labels)]))
        for _ in range(300)
    ]
    assert (found["average_precision"], found["brier"]) == pytest.approx(figures(np.arange(len(codes))))
    for name, values in zip(("average_precision", "brier"), np.transpose(drawn), strict=True):
        assert [found[f"{name}_low"], found[f"{name}_high"]] == pytest.approx(
            np.percentile(values, [2.5, 97.5]).tolist(), abs=0.25 * np.ptp(np.percentile(values, [2.5, 97.5]))
        )


@pytest.mark.parametrize("each", [1, 4, 5, 9])
def test_labels_with_fewer_than_five_images_are_drawn_together_and_others_each_by_itself(each: int) -> None:
    """Against a plain bootstrap. Some labels are all right and some all wrong: within these nothing varies."""
    rng, labels = np.random.default_rng(each), 40
    codes = np.repeat(np.arange(labels), each)
    odds = rng.dirichlet(np.ones(labels), len(codes)) / 2 + 0.5 * np.eye(labels)[(codes + (codes % 2)) % labels]
    names, called = np.array([f"label {code}" for code in range(labels)]), odds.argmax(axis=1)
    row = summarise(names[codes], names[called], odds, [*names])[-1]
    errors = ((odds - np.eye(labels)[codes]) ** 2).sum(axis=1)
    strata = codes if each >= 5 else np.zeros_like(codes)
    drawn = []
    for _ in range(600):
        some = np.concatenate([rng.choice(np.flatnonzero(strata == one), (strata == one).sum()) for one in set(strata)])
        there = np.unique(codes[some])
        drawn.append(
            [np.mean([(called[some] == one)[codes[some] == one].mean() for one in there]), errors[some].mean()]
        )
    for name, values in zip(("recall", "brier"), np.transpose(drawn), strict=True):
        found = row[f"{name}_low"], row[f"{name}_high"]
        assert found == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.03)
    if each == 1:
        assert row["recall_low"] < row["accuracy"] - 0.05 and row["accuracy"] + 0.05 < row["recall_high"]
        assert row["brier_high"] - row["brier_low"] > 0.1


@pytest.mark.parametrize("positive", [[True, False, False, False], [True, True, True, False]])
def test_a_single_image_of_a_label_gives_the_auc_no_interval(positive: list[bool]) -> None:
    p = np.array([0.9, 0.6, 0.3, 0.1])
    row = summarise(np.where(positive, "REAL", "FAKE"), np.where(p > 0.5, "REAL", "FAKE"), both(p), CLASSES)[-1]
    assert row["roc_auc"] == 1.0 and np.isnan([row["roc_auc_low"], row["roc_auc_high"]]).all()
    assert np.isnan(auc_interval(np.array(positive), p, 0)).all()
    assert not np.isnan(auc_interval(np.array([True, True, False, False]), p, 0)).any()


@pytest.mark.parametrize("images", [20, 200, 3000])
def test_the_expected_calibration_error_is_that_of_labels_drawn_from_the_heads_own_p(images: int) -> None:
    rng = np.random.default_rng(images)
    p = rng.beta(0.5, 0.5, images)
    drawn = [calibration_error(rng.random(images) < p, p) for _ in range(1500)]
    assert expected_error(p) == pytest.approx(np.mean(drawn), rel=0.03)


@pytest.mark.parametrize(("bent", "least"), [(1.0, 0.95), (2.0, 0.88)])
def test_the_interval_of_the_calibration_error_holds_that_of_many_images(bent: float, least: float) -> None:
    rng = np.random.default_rng(0)
    many = rng.beta(0.5, 0.5, 400_000)
    truth = calibration_error(many**bent, many)  # shares in place of labels: no chance
    held = []
    for _ in range(400):
        p = rng.beta(0.5, 0.5, 200)
        positive = rng.random(200) < p**bent
        low, high = error_interval(positive, p, rng)
        assert low <= calibration_error(positive, p) <= high
        held.append(low - 1e-3 <= truth <= high)
    assert np.mean(held) >= least


@pytest.mark.parametrize("count", [40, 43], ids=["as many of each label", "more of one label"])
def test_the_interval_of_the_auc_is_that_of_its_bootstrap_drawn_one_by_one(count: int) -> None:
    rng = np.random.default_rng(5)
    positive, p = np.arange(count) < 20, np.round(rng.random(count), 1)
    draws, areas = np.random.default_rng([3, 1]), []
    for _ in range(1000):
        rows = [side[draws.integers(len(side), size=len(side))] for side in (p[positive], p[~positive])]
        areas.append(reference.roc_auc_score(positive, np.concatenate(rows)))
    assert auc_interval(positive, p, 3) == pytest.approx(np.percentile(areas, [2.5, 97.5]), abs=1e-12)


def test_one_label_with_a_single_image_leaves_the_others_their_intervals() -> None:
    """The single image ranks at the top for its label: an area near 1, whose own interval nobody knows."""
    codes = np.array([0] * 450 + [1] * 450 + [2])
    rng = np.random.default_rng(0)
    odds = rng.dirichlet(np.ones(3), len(codes))
    odds[:, 2] *= 0.01
    odds[-1] = (0.25, 0.25, 0.5)
    odds /= odds.sum(axis=1, keepdims=True)
    names = np.array(["a", "b", "c"])
    *each, overall = summarise(names[codes], names[odds.argmax(axis=1)], odds, list(names))
    for name in ("roc_auc", "average_precision"):
        assert np.isnan(each[2][f"{name}_low"]) and 0 < each[0][f"{name}_high"] - each[0][f"{name}_low"] < 0.15
    for name in ("roc_auc", "average_precision", "brier", "recall"):
        assert overall[f"{name}_low"] < overall[name] < overall[f"{name}_high"], name
