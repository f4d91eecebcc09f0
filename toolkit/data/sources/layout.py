"""What the names of image files say: CIFAKE's own scheme, and folders `split/label/category/`."""

import re
from collections.abc import Iterable

import polars as pl

from toolkit.data.images import SUFFIXES
from toolkit.data.manifest import SPLITS, frame, natural
from toolkit.errors import DataError

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
"""CIFAKE's suffixes: `0001.jpg` is an airplane, `0001 (4).jpg` a cat. Proven for REAL, whose bytes are CIFAR-10's."""

NAME = re.compile(r"([0-9]{1,9})(?: \(([0-9]{1,2})\))?\.jpg", re.IGNORECASE)

Row = tuple[str, str, str | None, str]


def parse_cifake_name(name: str) -> tuple[int, int] | None:
    """`0012 (4).jpg` -> (12, 4), number and suffix; no suffix counts as 1. None for a name of another scheme.

    >>> parse_cifake_name("0012 (4).jpg"), parse_cifake_name("0012.jpg"), parse_cifake_name("dog.jpg")
    ((12, 4), (12, 1), None)
    """
    found = NAME.fullmatch(name)
    if not found:
        return None
    suffix = int(found[2]) if found[2] else 1
    valid = suffix in CATEGORIES and not (found[2] and suffix == 1)
    return (int(found[1]), suffix) if valid else None


def rows_from_names(paths: Iterable[str], where: str) -> tuple[str, pl.DataFrame]:
    """Paths of images, relative to the data's root -> ("cifake" or "folder", the rows in their order).

    The names of a split's folder may lie one level deeper, as where an archive holds one folder with everything.
    Raises DataError where the paths fit neither scheme.
    """
    images = [path for path in paths if path.lower().endswith(SUFFIXES)]
    parts = _below_the_split([_parts(path) for path in images])
    known = [(path, where_) for path, where_ in zip(images, parts, strict=True) if where_]
    if not known:
        raise DataError(
            f"{where} holds no images in folders split/label/ or split/label/category/ (split: train or test; label: "
            f"REAL, FAKE, or names of your own). A folder a label is not enough: some images of each belong below "
            f"train/, others below test/."
        )
    if _is_cifake([place for _, place in known]):
        return "cifake", frame(_cifake(known))
    return "folder", frame(_folders(known))


def _parts(path: str) -> tuple[str, ...]:
    """A relative path's folders and name."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _is_cifake(places: list[tuple[str, ...]]) -> bool:
    """Numbered files alone are no proof: the labels must be CIFAKE's, and some names must carry a suffix."""
    numbers = [parse_cifake_name(place[2]) for place in places if len(place) == 3 and place[1] in ("REAL", "FAKE")]
    return len(numbers) == len(places) and all(numbers) and any(number and number[1] > 1 for number in numbers)


def _below_the_split(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each path from its split's folder on; an empty tuple for a path without one."""
    found = []
    for parts in paths:
        depth = next((i for i, part in enumerate(parts[:2]) if part.lower() in SPLITS), None)
        usable = depth is not None and len(parts) >= depth + 3
        found.append((parts[depth].lower(), *parts[depth + 1 :]) if usable and depth is not None else ())
    return found


def _cifake(known: list[tuple[str, tuple[str, ...]]]) -> list[Row]:
    numbered = []
    for path, (split, label, name) in known:
        number = parse_cifake_name(name)
        assert number is not None
        numbered.append((number, (path, label, CATEGORIES[number[1]], split)))
    return [row for _, row in sorted(numbered)]


def _folders(known: list[tuple[str, tuple[str, ...]]]) -> list[Row]:
    """Rows in natural order of their names below split and label, so that a label's first N are whatever they hold."""
    rows: list[Row] = []
    for path, place in known:
        rows.append((path, place[1], place[2] if len(place) > 3 else None, place[0]))
    order = {path: tuple(natural("/".join(place[2:]))) for path, place in known}
    return sorted(rows, key=lambda row: (order[row[0]], row[0]))
