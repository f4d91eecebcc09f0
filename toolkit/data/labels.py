"""The labels of a comparison, and which of them is positive."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

REAL = frozenset({"real", "reals", "nature", "natural", "authentic", "genuine", "original", "pristine", "human"})
"""Words for real images. If one of two labels contains such a word, it is the positive one."""

NAMED = 10
"""So many labels are named in a message."""


@dataclass(frozen=True)
class Labels:
    """The labels in their order, and which of them is positive.

    With two labels, the positive one comes last, and `p_real` is its probability. With more than two there is no
    positive label unless one is given.
    """

    names: tuple[str, ...]
    positive: str | None = None

    @classmethod
    def of(cls, names: Sequence[str], positive: str | None = None) -> "Labels":
        """Labels `names`, of which `positive` is one. If it is not given, the positive one of two labels is the one
        that means real (`REAL`, `0_real`, …), else the last.

        >>> Labels.of(["0_real", "1_fake"])
        Labels(names=('1_fake', '0_real'), positive='0_real')
        >>> Labels.of(["cats", "dogs"]).positive
        'dogs'
        """
        if positive is None and len(names) == 2:
            real = [name for name in names if says_real(name)]
            positive = real[0] if len(real) == 1 else names[1]
        if len(names) == 2:
            names = [*(name for name in names if name != positive), *(name for name in names if name == positive)]
        return cls(tuple(names), positive)

    @property
    def negative(self) -> str | None:
        """The other one of two labels."""
        others = [name for name in self.names if name != self.positive]
        return others[0] if self.positive is not None and len(others) == 1 else None

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def some(names: Sequence[str]) -> str:
    """Names for a message: all of them, or the first few and how many more there are.

    >>> some([f"class {number}" for number in range(100)])
    'class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7, class 8, class 9 and 90 more'
    """
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def says_real(label: str) -> bool:
    """Whether a label means real images, as `REAL`, `0_real` or `Nature` do."""
    return bool(set(re.split(r"[^a-z]+", label.lower())) & REAL)
