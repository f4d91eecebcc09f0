"""Read folders by a layout given by the user, `{split}/{generator}/{category}/{label}`, without guessing."""

import difflib
import os
import re
from collections.abc import Sequence

import polars as pl

from toolkit.data.manifest import natural
from toolkit.data.sources.layout import Arranged, places_of
from toolkit.errors import DataError

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|(\*)")
SPELLED_ALIKE = 0.8
RESERVED = ("path", "row", "sha256", "reason")
"""Columns that the manifest uses itself."""


def arrange_as(paths: Sequence[str], layout: str) -> Arranged:
    """Interpret `paths` by `layout`, which may leave out folders around everything.

    Raises DataError if the layout is invalid or fits no path.
    """
    pattern, meanings = _pattern(layout)
    around = os.path.commonprefix([place.folders for place in places_of(paths)])
    for depth in range(len(around) + 1):
        found, missed = [], []
        for path in paths:
            match = pattern.fullmatch("/".join([part for part in path.split("/") if part not in ("", ".")][depth:]))
            found.append({"path": path, **match.groupdict()}) if match else missed.append(path)
        if found:
            break
    else:
        example = f": the first is {paths[0]}" if paths else ""
        raise DataError(f"--layout {layout} fits none of {len(paths):,} images{example}.")
    found.sort(key=lambda row: (natural(row["path"]), row["path"]))
    names = ["path", *dict.fromkeys(["label", "split", *meanings])]
    rows = pl.DataFrame(found, schema=dict.fromkeys(names, pl.String))
    levels = [(f"level {number}", name) for number, name in enumerate(meanings, 1)]
    return Arranged(rows, [(path, f"does not fit {layout}") for path in missed], levels, layout, True)


def _pattern(layout: str) -> tuple[re.Pattern[str], list[str]]:
    """`{split}/*/{label}` as a regular expression over whole paths, and its names. The last part stands for the file if
    it has a dot or a star; else further folders may lie below it."""
    names = [found[1] for found in PLACEHOLDER.finditer(layout) if found[1]]
    for name in names:
        meant = difflib.get_close_matches(name, {"label", "split", "category"}.difference(names), 1, SPELLED_ALIKE)
        if meant and not name.endswith(meant[0]):  # a {subcategory} is no {category}
            raise DataError(f"--layout {layout} has {{{name}}}. Did you mean {{{meant[0]}}}?")
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
