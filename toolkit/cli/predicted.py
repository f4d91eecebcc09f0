"""Predictions as a table for a terminal, and how many images got each label."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.prediction.predict import Predicted

TOP = 3
"""So many labels of an image are shown."""
MOST_LINES = 100
"""A terminal shows so many images; --csv, --json and a pipe have them all."""


def table(done: "Predicted") -> Any:
    """A line for each image; on a terminal only for the first `MOST_LINES`."""
    from rich.table import Table

    shown = Table(box=None, header_style="bold")
    shown.add_column("Image", overflow="fold")
    labels = done.head.record.labels
    several = len(labels) > 2
    for name in ("Label", *(["P", "Next"] if several else [f"P({labels.positive})"]), ""):
        shown.add_column(name, no_wrap=name not in ("", "Next"))
    images = done.images.head(MOST_LINES) if sys.stdout.isatty() else done.images
    if len(images) < len(done.images):
        shown.caption = f"The first {len(images)} of {len(done.images):,} images; --csv has them all."
    for row in images.iter_rows(named=True):
        if row["reason"]:
            nothing = ["–"] * (3 if several else 2)
            shown.add_row(row["path"], *nothing, f"unreadable: {row['reason']}")
            continue
        odds = _of_several(row, labels.names) if several else [f"{row['p_real']:.3f}"]
        shown.add_row(row["path"], row["label"] or "unsure", *odds, "far" if row["far"] else "")
    return shown


def _of_several(row: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """P of the label called (of an image left open: of the likeliest), and the next likeliest labels with theirs."""
    ordered = likeliest(row["probabilities"], names)
    first = next((one for one in ordered if one[0] == row["label"]), ordered[0])
    rest = [f"{label} {p:.3f}" for label, p in ordered if label != first[0]][: TOP - 1]
    return [f"{first[1]:.3f}", ", ".join(rest) if row["label"] else f"{first[0]}, {', '.join(rest)}"]


def counts(done: "Predicted") -> str:
    """How many images got each label: `REAL 12, FAKE 3, unsure 1, not read 2.`"""
    read = done.images["reason"].is_null()
    answers = done.images.filter(read)["label"].fill_null("unsure").value_counts(sort=True)
    parts = [f"{label} {count:,}" for label, count in answers.iter_rows()]
    parts += [f"not read {int((~read).sum()):,}"] if not read.all() else []
    return f"{', '.join(parts)}." if parts else "No images."


def likeliest(probabilities: Sequence[float] | None, names: Sequence[str]) -> list[tuple[str, float]]:
    """Labels with their P, the likeliest first; none for an image that was not read."""
    return sorted(zip(names, probabilities or (), strict=False), key=lambda one: -one[1])
