"""Folder levels other than split and label: generators and categories, above or below the label."""

from collections.abc import Sequence

from toolkit.data.sources.place import Place
from toolkit.data.sources.vocabulary import is_generator, split_named


def find_further_levels(places: Sequence[Place]) -> None:
    """Set the generator and category of each place with a known label, if its folders name them."""
    above = _levels_above(places)
    depth = max((len(one) for one in above), default=0)
    generators = _generators(places, above, depth)
    for place, levels in zip(places, above, strict=True):
        outside = place.split is not None and bool(levels) and levels[0] < place.split
        if len(levels) == 1:
            names = ["generator" if outside or place.folders[levels[0]] in generators else "category"]
        else:
            names = ["generator", *[f"level {number}" for number in range(2, len(levels))], "category"][: len(levels)]
        place.further.update(zip(names, levels, strict=True))
    if not any("category" in place.further for place in places):
        _name_what_is_below(places)


def _levels_above(places: Sequence[Place]) -> list[list[int]]:
    """For each label, the positions of the folders above it that distinguish images. Excluded are the split, folders
    around everything, and levels that correspond one to one to the split or to the level above."""
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


def _generators(places: Sequence[Place], above: Sequence[list[int]], depth: int) -> set[str]:
    """The names of first folders that are generators. If further levels follow some of them, these and those that sound
    like a generator; else all of them, if at least half sound like one."""
    firsts = [(place.folders[one[0]], len(one)) for place, one in zip(places, above, strict=True) if one]
    names = {name for name, _ in firsts}
    sounding = {name for name in names if is_generator(name)}
    if depth == 1:
        return names if 2 * len(sounding) >= len(names) else set()
    return sounding | {name for name, length in firsts if length > 1}


def _name_what_is_below(places: Sequence[Place]) -> None:
    """The folder below the label is the category; or the generator, if labels share no such folder and it names
    generators."""
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
