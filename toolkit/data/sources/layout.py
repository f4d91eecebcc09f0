"""Find out what folders mean: from all image paths to label, split, category and further levels.

`vocabulary` has the words, `template` reads a layout given by the user. Recognised layouts: split/label,
split/label/category, split/category/label and split/generator/category/label (CNNDetection and similar),
generator/split/label (GenImage), label/split, label alone. Any folders may lie around all of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from toolkit.data.manifest import natural
from toolkit.data.sources.further_levels import find_further_levels
from toolkit.data.sources.place import Folders, Place
from toolkit.data.sources.vocabulary import WRAPPERS, label_word, split_named, split_within

FEWEST = 0.5
"""An interpretation of the folders counts if it fits at least this share of the images."""
NO_LABEL = "in no folder of a label"
NO_SPLIT = "neither in train nor in test"


@dataclass(frozen=True)
class Arranged:
    """`rows` (path, label, split and further levels, all String, null if a path has none) in their order; `passed_over`
    (path, reason); `levels` (place, meaning), and `read_as` the same in short (`split/label`); `by_words`:
    whether labels were found by their names rather than by their position."""

    rows: pl.DataFrame
    passed_over: list[tuple[str, str]]
    levels: list[tuple[str, str]]
    read_as: str
    by_words: bool


def arrange(paths: Sequence[str]) -> Arranged:
    """Interpret the folders in `paths` by their names and positions."""
    places = places_of(paths)
    _find_splits(places)
    by_words = _find_label_words(places)
    if not by_words:
        _find_labels_by_position(places)
    known = [place for place in places if place.label is not None]
    find_further_levels(known)
    splits = any(place.split is not None for place in places)
    missed = [
        (path, NO_SPLIT if splits and place.split is None else NO_LABEL)
        for place in places
        if place.label is None
        for path in place.images
    ]
    meanings = ["label", "split", *dict.fromkeys(name for place in known for name in place.further)]
    levels = _levels(known, meanings)
    return Arranged(_rows(known, meanings), missed, levels, "/".join(name for _, name in levels), by_words)


def places_of(paths: Iterable[str]) -> list[Place]:
    """The folders that contain images, each once: far fewer than images."""
    places: dict[Folders, Place] = {}
    for path in paths:
        folders = tuple(part for part in path.split("/")[:-1] if part not in ("", "."))
        places.setdefault(folders, Place(folders, [])).images.append(path)
    return list(places.values())


def _rows(places: Sequence[Place], meanings: Sequence[str]) -> pl.DataFrame:
    """The rows, in natural order of their paths without split and label."""
    keyed = []
    for number, place in enumerate(places):
        inside = place.inside()
        keyed += [(natural(inside + path.rsplit("/", 1)[-1]), path, number) for path in place.images]
    keyed.sort()
    values = [[place.value(name) for name in meanings] for place in places]
    columns: Mapping[str, list[str | None]] = {
        "path": [path for _, path, _ in keyed],
        **{name: [values[number][column] for *_, number in keyed] for column, name in enumerate(meanings)},
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _levels(places: Sequence[Place], meanings: Iterable[str]) -> list[tuple[str, str]]:
    """(place, meaning) in the order in which they usually occur in a path."""
    found = []
    for meaning in meanings:
        there: Counter[int] = Counter()
        for place in places:
            there.update({at: len(place.images)} if (at := place.at(meaning)) is not None else {})
        if there:
            found.append((there.most_common(1)[0][0], meaning))
    return [(f"folder {at + 1}", meaning) for at, meaning in sorted(found)]


def _share(places: Sequence[Place], found: Sequence[int | None]) -> float:
    """The share of images whose folder has a found position."""
    images = sum(len(place.images) for place in places)
    return sum(len(place.images) for place, at in zip(places, found, strict=True) if at is not None) / max(images, 1)


def _find_splits(places: Sequence[Place]) -> None:
    """Find the innermost folder named like a split; if there is none, names that contain such a word."""
    found = [_last(place.folders, split_named) for place in places]
    if not any(at is not None for at in found):
        found = [_last(place.folders, split_within) for place in places]
        if _share(places, found) < FEWEST:
            return
    for place, at in zip(places, found, strict=True):
        place.split = at


def _last(folders: Folders, known: Callable[[str], object]) -> int | None:
    return next((at for at in reversed(range(len(folders))) if known(folders[at])), None)


def _find_label_words(places: Sequence[Place]) -> bool:
    """Find labels by the names of their folders (`REAL`, `1_fake`, …). Returns whether most paths have one.

    Words count most if both kinds are siblings, so that a category `nature` below `REAL` is not a label. Other siblings
    of such folders are labels as well.
    """
    words = [{at: word for at, one in enumerate(place.folders) if (word := label_word(one))} for place in places]
    kinds: dict[Folders, set[bool]] = {}
    for place, found in zip(places, words, strict=True):
        for at, (_, real) in found.items():
            kinds.setdefault(place.folders[:at], set()).add(real)
    chosen = [_surest(place, found, kinds) for place, found in zip(places, words, strict=True)]
    both = {found[at][1] for found, at in zip(words, chosen, strict=True) if at is not None}
    beside = {place.folders[:at] for place, at in zip(places, chosen, strict=True) if at is not None}
    for number, place in enumerate(places):
        if chosen[number] is None:
            levels = [at for at in range(len(place.folders)) if at != place.split and place.folders[:at] in beside]
            chosen[number] = levels[-1] if levels else None
    if len(both) < 2 or _share(places, chosen) < FEWEST:
        return False
    for place, label in zip(places, chosen, strict=True):
        place.label = label
    return True


def _surest(place: Place, found: dict[int, tuple[int, bool]], kinds: dict[Folders, set[bool]]) -> int | None:
    ranked = [(len(kinds[place.folders[:at]]) < 2, sure, -at) for at, (sure, _) in found.items()]
    return -min(ranked)[2] if ranked else None


def _find_labels_by_position(places: Sequence[Place]) -> None:
    """Take the folder below the split as label, else the one above it; without splits the first that differs between
    paths."""
    divided = [place for place in places if place.split is not None]
    below = [_first_telling(place, (place.split or 0) + 1) for place in divided]
    goes_below = _share(divided, below) >= FEWEST
    around = 0 if divided else _around(places)
    for place in places:
        if place.split is None:
            place.label = None if divided or len(place.folders) <= around else around
        elif goes_below:
            place.label = _first_telling(place, place.split + 1)
        else:
            place.label = place.split - 1 if place.split else None


def _first_telling(place: Place, start: int) -> int | None:
    """The first folder from `start` on that is not named `images` or similar; if there is none, the folder at
    `start`."""
    rest = range(start, len(place.folders))
    return next((at for at in rest if place.folders[at].lower() not in WRAPPERS), rest[0] if rest else None)


def _around(places: Sequence[Place]) -> int:
    """How many folders lie around everything."""
    folders = [place.folders for place in places if place.folders]
    depth = 0
    while folders and all(len(one) > depth + 1 for one in folders) and len({one[depth] for one in folders}) == 1:
        depth += 1
    return depth
