"""Of two labels, the one that means real is positive, in any order; `--positive` overrides that."""

import pytest

from toolkit.data.labels import Labels, says_real


@pytest.mark.parametrize(
    "names, positive",
    [
        (["FAKE", "REAL"], "REAL"),
        (["REAL", "FAKE"], "REAL"),
        (["0_real", "1_fake"], "0_real"),
        (["ai", "nature"], "nature"),
        (["nature", "unnatural"], "nature"),
        (["Authentic", "tampered"], "Authentic"),
        (["cats", "dogs"], "dogs"),
        (["real-2019", "real-2020"], "real-2020"),
    ],
)
def test_the_label_that_says_real_is_positive_else_the_second(names: list[str], positive: str) -> None:
    labels = Labels.of(names)
    assert labels.positive == positive
    assert labels.names[-1] == positive and set(labels.names) == set(names)
    assert labels.negative == next(name for name in names if name != positive)


def test_an_explicit_positive_label_is_used() -> None:
    assert Labels.of(["FAKE", "REAL"], "FAKE").names == ("REAL", "FAKE")
    assert Labels.of(["a", "b", "c"]).positive is None


def test_a_word_inside_another_does_not_count() -> None:
    assert not says_real("surreal") and not says_real("unnatural") and says_real("Real_photos")
