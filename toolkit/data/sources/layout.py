"""What folders mean: paths of images -> label, split, category and further levels, found by looking at all at once.

The words come from `vocabulary`; `--layout` says it outright instead. Layouts that are recognised: split/label,
split/label/category, split/category/label and split/generator/category/label (CNNDetection and its like),
generator/split/label (GenImage), label/split, label alone; each within any folders around everything.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from toolkit.data.manifest import natural
from toolkit.data.sources.vocabulary import WRAPPERS, is_generator, label_word, split_named, split_within
from toolkit.errors import DataError

Folders = tuple[str, ...]

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|(\*)")
RESERVED = ("path", "row", "sha256", "reason")
FEWEST = 0.5
"""A way to read the folders counts where it fits at least this share of the paths."""
NO_LABEL = "in no folder of a label"
NO_SPLIT = "neither in train nor in test"


@dataclass
class Place:
    """What one path's folders mean, by their positions: the split's, the label's, and those of further levels."""

    folders: Folders
    name: str
    split: int | None = None
    label: int | None = None
    further: dict[str, int] = field(default_factory=dict)

    def at(self, meaning: str) -> int | None:
        """The position of the folder with this meaning."""
        return {"split": self.split, "label": self.label, **self.further}.get(meaning)

    def value(self, meaning: str) -> str | None:
        """The folder with this meaning."""
        at = self.at(meaning)
        return None if at is None else self.folders[at]

    def order(self) -> str:
        """What its images are ordered by: the path without split, label and the folders around everything."""
        ends = [at for at in (self.split, self.label, *self.further.values()) if at is not None]
        first = min(ends, default=0)
        kept = [one for at, one in enumerate(self.folders) if at >= first and at not in (self.split, self.label)]
        return "/".join([*(one for one in kept if not split_named(one)), self.name])


@dataclass(frozen=True)
class Arranged:
    """Rows (dicts with path, label, split and further levels, null where a path has none) in their order; what was
    passed over; and (place, meaning) of each level, also in short (`split/label`)."""

    rows: list[dict[str, str | None]]
    passed_over: list[tuple[str, str]]
    levels: list[tuple[str, str]]
    read_as: str
    notes: list[str]
    by_words: bool = False
    """Whether the labels were known by what they are called, not by where they stand."""


def arrange(paths: Sequence[str], layout: str | None = None) -> Arranged:
    """What the folders in `paths` mean: as `layout` says (`{split}/{label}`), else by what they are called.

    Raises DataError where a layout cannot be understood or fits no path.
    """
    if layout:
        return _said(paths, layout)
    places = [_place(path) for path in paths]
    _find_splits(places)
    by_words = _find_label_words(places)
    if not by_words:
        _find_labels_by_position(places)
    known = [place for place in places if place.label is not None]
    _find_further_levels(known)
    notes = _join_labels_of_any_case(known)
    both = list(zip(paths, places, strict=True))
    splits = any(place.split is not None for place in places)
    missed = [
        (path, NO_SPLIT if splits and place.split is None else NO_LABEL) for path, place in both if place.label is None
    ]
    return replace(_arranged([one for one in both if one[1].label is not None], missed, notes), by_words=by_words)


def _arranged(found: list[tuple[str, Place]], missed: list[tuple[str, str]], notes: list[str]) -> Arranged:
    meanings = ["label", "split", *dict.fromkeys(name for _, place in found for name in place.further)]
    found = sorted(found, key=lambda one: (tuple(natural(one[1].order())), one[0]))
    rows: list[dict[str, str | None]] = [
        {"path": path, **{name: place.value(name) for name in meanings}} for path, place in found
    ]
    levels = _levels([place for _, place in found], meanings)
    return Arranged(rows, missed, levels, "/".join(meaning for _, meaning in levels), notes)


def _levels(places: Sequence[Place], meanings: Iterable[str]) -> list[tuple[str, str]]:
    """(place, meaning) in the order in which they mostly stand in a path."""
    found = []
    for meaning in meanings:
        there = Counter(at for place in places if (at := place.at(meaning)) is not None)
        if there:
            found.append((there.most_common(1)[0][0], meaning))
    return [(f"folder {at + 1}", meaning) for at, meaning in sorted(found)]


def _place(path: str) -> Place:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return Place(tuple(parts[:-1]), parts[-1] if parts else "")


def _find_splits(places: Sequence[Place]) -> None:
    """The innermost folder that is called like a split; names that merely contain the word, where none is."""
    for place in places:
        place.split = _last(place.folders, split_named)
    if any(place.split is not None for place in places):
        return
    within = [_last(place.folders, split_within) for place in places]
    if sum(at is not None for at in within) >= FEWEST * len(places):
        for place, at in zip(places, within, strict=True):
            place.split = at


def _last(folders: Folders, known: Callable[[str], object]) -> int | None:
    return next((at for at in reversed(range(len(folders))) if known(folders[at])), None)


def _find_label_words(places: Sequence[Place]) -> bool:
    """Labels by what their folders are called (`REAL`, `1_fake`, …) -> whether most paths have one.

    Words count most where both kinds stand side by side, so that a category `nature` below `REAL` is none. What else
    stands beside them is a label as well.
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
    if len(both) < 2 or sum(at is not None for at in chosen) < FEWEST * len(places):
        return False
    for place, label in zip(places, chosen, strict=True):
        place.label = label
    return True


def _surest(place: Place, found: dict[int, tuple[int, bool]], kinds: dict[Folders, set[bool]]) -> int | None:
    ranked = [(len(kinds[place.folders[:at]]) < 2, sure, -at) for at, (sure, _) in found.items()]
    return -min(ranked)[2] if ranked else None


def _find_labels_by_position(places: Sequence[Place]) -> None:
    """The folder below the split, else the one above it; without splits the first one that differs between paths."""
    below = [_first_telling(place, (place.split or 0) + 1) for place in places if place.split is not None]
    goes_below = sum(at is not None for at in below) >= FEWEST * len(below)
    around = 0 if below else _around(places)
    for place in places:
        if place.split is None:
            place.label = None if below or len(place.folders) <= around else around
        elif goes_below:
            place.label = _first_telling(place, place.split + 1)
        else:
            place.label = place.split - 1 if place.split else None


def _first_telling(place: Place, start: int) -> int | None:
    """The first folder from `start` on that is not called `images` or the like; that one, where there is no other."""
    rest = range(start, len(place.folders))
    return next((at for at in rest if place.folders[at].lower() not in WRAPPERS), rest[0] if rest else None)


def _around(places: Sequence[Place]) -> int:
    """How many folders lie around everything."""
    folders = [place.folders for place in places if place.folders]
    depth = 0
    while folders and all(len(one) > depth + 1 for one in folders) and len({one[depth] for one in folders}) == 1:
        depth += 1
    return depth


def _find_further_levels(places: Sequence[Place]) -> None:
    """Generator and category, above the label or below it."""
    above = _levels_above(places)
    depth = max((len(one) for one in above), default=0)
    for place, levels in zip(places, above, strict=True):
        for name, at in zip(_names_above(place, levels, depth, places, above), levels, strict=True):
            place.further[name] = at
    if not any("category" in place.further for place in places):
        _name_what_is_below(places)


def _levels_above(places: Sequence[Place]) -> list[list[int]]:
    """The positions of the folders above each label that tell images apart: not split, not around everything, nothing
    that goes with the split or the level above it one to one."""
    above = [
        [at for at in range(place.label or 0) if at != place.split and not split_named(place.folders[at])]
        for place in places
    ]
    depth = 0
    while depth < max((len(one) for one in above), default=0):
        there = [(place, one) for place, one in zip(places, above, strict=True) if len(one) > depth]
        values = {place.folders[one[depth]] for place, one in there}
        outside = all(place.split is not None and one[depth] < place.split for place, one in there)
        splits = {(place.folders[one[depth]], place.value("split")) for place, one in there} if outside else set()
        pairs = {(place.folders[one[depth - 1]], place.folders[one[depth]]) for place, one in there} if depth else set()
        one_to_one = bool(pairs) and len(pairs) == len(values) == len({first for first, _ in pairs})
        if len(values) == 1 or len(splits) == len(values) > 1 or one_to_one:
            for _, one in there:
                del one[depth]
        else:
            depth += 1
    return above


def _names_above(
    place: Place, levels: list[int], depth: int, places: Sequence[Place], above: Sequence[list[int]]
) -> list[str]:
    if len(levels) == 1 and depth == 1:
        outside = place.split is not None and levels[0] < place.split
        return ["generator" if outside or _mostly_generators(places, above) else "category"]
    if len(levels) == 1:  # others have generator and category: which of them is this one?
        value = place.folders[levels[0]]
        firsts = {other.folders[one[0]] for other, one in zip(places, above, strict=True) if len(one) > 1}
        return ["generator" if value in firsts or is_generator(value) else "category"]
    middle = [f"level {number}" for number in range(2, len(levels))]
    return ["generator", *middle, "category"][: len(levels)]


def _mostly_generators(places: Sequence[Place], above: Sequence[list[int]]) -> bool:
    names = {place.folders[one[0]] for place, one in zip(places, above, strict=True) if one}
    return 2 * sum(map(is_generator, names)) >= len(names)


def _name_what_is_below(places: Sequence[Place]) -> None:
    """The folder below the label is the category; where labels share none and it names generators, it is those."""
    below = [(place, place.label + 1) for place in places if len(place.folders) > (place.label or 0) + 1]  # type: ignore[operator]
    below = [(place, at) for place, at in below if at != place.split and not split_named(place.folders[at])]
    of_label: dict[str | None, set[str]] = {}
    for place, at in below:
        of_label.setdefault(place.value("label"), set()).add(place.folders[at])
    shared = len(set().union(*of_label.values())) < sum(map(len, of_label.values()))
    made = {label for label, names in of_label.items() if 2 * sum(map(is_generator, names)) >= len(names)}
    for place, at in below:
        if shared or not made:
            place.further["category"] = at
        elif place.value("label") in made and "generator" not in place.further:
            place.further["generator"] = at


def _join_labels_of_any_case(places: Sequence[Place]) -> list[str]:
    """Labels that differ in case alone are one, spelled as most images have it -> what to tell the user of it."""
    counts = Counter(place.folders[place.label] for place in places if place.label is not None)
    spellings: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        spellings.setdefault(name.lower(), []).append(name)
    other = {name: same[0] for same in spellings.values() for name in same[1:]}
    for place in places:
        if place.label is not None and place.folders[place.label] in other:
            changed = list(place.folders)
            changed[place.label] = other[changed[place.label]]
            place.folders = tuple(changed)
    return [f"{' and '.join(same)} count as one label, {same[0]}." for same in spellings.values() if len(same) > 1]


def _said(paths: Sequence[str], layout: str) -> Arranged:
    """As `--layout` says; whatever lies around everything may be left out of it."""
    pattern, meanings = _pattern(layout)
    around = _around([_place(path) for path in paths])
    for depth in range(around + 1):
        found, missed = [], []
        for path in paths:
            match = pattern.fullmatch("/".join([part for part in path.split("/") if part not in ("", ".")][depth:]))
            found.append((path, match.groupdict())) if match else missed.append((path, f"does not fit {layout}"))
        if found:
            break
    else:
        example = f": the first is {paths[0]}" if paths else ""
        raise DataError(f"--layout {layout} fits none of {len(paths):,} images{example}.")
    found = sorted(found, key=lambda one: (tuple(natural(one[0])), one[0]))
    levels = [(f"level {number}", name) for number, name in enumerate(meanings, 1)]
    return Arranged([{"path": path, **values} for path, values in found], missed, levels, layout, [], True)


def _pattern(layout: str) -> tuple[re.Pattern[str], list[str]]:
    """`{split}/*/{label}` as a regular expression over whole paths, and its names. Folders may lie below the last one,
    unless that one has a dot or a star: then it stands for the file."""
    names = [found[1] for found in PLACEHOLDER.finditer(layout) if found[1]]
    wrong = next((name for name in names if names.count(name) > 1 or name in RESERVED), None)
    if "label" not in names or wrong or "{" in PLACEHOLDER.sub("", layout) or "}" in PLACEHOLDER.sub("", layout):
        reason = f"{{{wrong}}} cannot be there, or only once" if wrong else "it needs {label}"
        raise DataError(
            f"--layout {layout} cannot be read ({reason}): write the folders as in {{split}}/{{label}}/{{category}}; "
            f"* stands for a folder that means nothing."
        )
    pieces, start = [], 0
    layout = layout.strip("/")
    for found in PLACEHOLDER.finditer(layout):
        pieces += [re.escape(layout[start : found.start()]), f"(?P<{found[1]}>[^/]+?)" if found[1] else "[^/]*"]
        start = found.end()
    last = layout.rsplit("/", 1)[-1]
    names_the_file = "." in last or "*" in last
    return re.compile("".join([*pieces, re.escape(layout[start:]), "" if names_the_file else "/.+"])), names
