"""CIFAKE's file names (Bird & Lotfi 2023): the number of the CIFAR-10 image, and the category as a suffix."""

import re
from collections.abc import Collection, Sequence

from toolkit.data.images import SUFFIXES

CATEGORIES = {
    1: "airplane",
    2: "automobile",
    3: "bird",
    4: "cat",
    5: "deer",
    6: "dog",
    7: "frog",
    8: "horse",
    9: "ship",
    10: "truck",
}
"""CIFAKE's suffixes: `0001.jpg` is an airplane, `0001 (4).jpg` a cat. Verified for REAL, whose bytes equal
CIFAR-10's."""

NAME = re.compile(
    rf"([0-9]{{1,9}})(?: \(([0-9]{{1,2}})\))?(?:{'|'.join(map(re.escape, SUFFIXES))})", re.IGNORECASE | re.ASCII
)
MOST = 0.5
"""Data is CIFAKE if more than this share of its names fits."""
FEW_WITH_SUFFIX = 0.1
"""Data is not CIFAKE if fewer of its numbered files have a suffix: then these mark copies."""

ODD = "its name says no category, as CIFAKE's names do"


def parse_cifake_name(name: str) -> tuple[int, int] | None:
    """`0012 (4).jpg` -> (12, 4), number and suffix; no suffix counts as 1. None for a name of another scheme.

    >>> parse_cifake_name("0012 (4).jpg"), parse_cifake_name("0012.PNG"), parse_cifake_name("dog.jpg")
    ((12, 4), (12, 1), None)
    """
    found = NAME.fullmatch(name)
    if not found:
        return None
    suffix = int(found[2]) if found[2] else 1
    valid = suffix in CATEGORIES and not (found[2] and suffix == 1)
    return (int(found[1]), suffix) if valid else None


def cifake_numbers(names: Sequence[str], labels: Collection[str]) -> list[tuple[int, int] | None] | None:
    """Number and suffix of each file name, None for one that does not fit; None instead of a list if this is not
    CIFAKE.

    Numbered files are not enough: the labels must be CIFAKE's, most names must fit, and some must have a suffix.
    """
    if {label.lower() for label in labels} != {"real", "fake"}:
        return None
    numbers = [parse_cifake_name(name) for name in names]
    fitting = [number for number in numbers if number]
    suffixed = sum(suffix > 1 for _, suffix in fitting)
    if len(fitting) <= MOST * len(names) or not suffixed or suffixed < FEW_WITH_SUFFIX * len(fitting):
        return None
    return numbers
