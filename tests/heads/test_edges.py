"""A head says where what it chose stands at the edge of its grid, and only there."""

import numpy as np
import pytest

from toolkit.encoders.features import FACTS
from toolkit.heads.base import Tried, at_edge
from toolkit.heads.knn import NearestNeighbours
from toolkit.heads.layer_probes import LayerProbes
from toolkit.heads.lda import DiscriminantAnalysis
from toolkit.heads.logreg import LogisticProbe
from toolkit.heads.shortcut import Shortcut


def rows(noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.repeat(["FAKE", "REAL"], 60)
    return (rng.normal(size=(120, 8)) + (y == "REAL")[:, None] / noise).astype(np.float32), y


def test_probes_of_pure_noise_want_less_than_their_grids_have() -> None:
    X, y = rows(1e9)
    assert LogisticProbe(grid=(10.0, 100.0)).fit(X, y).choice_["at_edge"] == ["C = 10"]
    assert NearestNeighbours(k_grid=(1, 3, 51)).fit(X, y).choice_["at_edge"] == ["k = 51"]


def test_the_largest_number_of_neighbours_that_there_are_images_for_is_an_edge_too() -> None:
    X, y = rows(1e9)
    assert NearestNeighbours(k_grid=(1, 3, 51, 101)).fit(X, y).choice_["at_edge"] == ["k = 51"]


def test_a_block_that_the_answer_rests_on_says_which_one_wants_more() -> None:
    X, y = rows(0.2)
    assert LayerProbes(grid=(0.001, 0.01)).fit(X, y).choice_["at_edge"] == ["block 1: C = 0.01"]


def test_a_choice_inside_its_grid_or_at_a_natural_end_or_without_alternatives_is_none() -> None:
    X, y = rows(1.0)
    assert "at_edge" not in LogisticProbe(grid=(1.0,)).fit(X, y).choice_
    assert "at_edge" not in DiscriminantAnalysis().fit(X, y).choice_
    assert "at_edge" not in Shortcut().fit(rows(1e9)[0], y).choice_, "depth 0 is no edge: nothing is below it"


@pytest.mark.parametrize(("value", "said"), [(1, {}), (3, {}), (101, {"at_edge": ["k = 101"]})])
def test_a_natural_end_is_no_edge(value: int, said: dict[str, list[str]]) -> None:
    assert at_edge(Tried("k", value, (1, 3, 101), natural=1)) == said


def test_with_one_image_a_label_no_loss_on_left_out_images_is_claimed() -> None:
    X, y = np.zeros((2, len(FACTS)), np.float32), np.array(["FAKE", "REAL"])
    assert Shortcut().fit(X, y).choice_["log_loss"] is None
