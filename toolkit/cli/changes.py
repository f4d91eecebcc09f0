"""What changed since earlier results, as a table for a terminal."""

from typing import TYPE_CHECKING, Any

from toolkit.cli.output import print_table

if TYPE_CHECKING:
    from toolkit.results.against import Against


def print_changes(found: "Against") -> None:
    """Print a line for each row, and what could not be compared."""
    from rich.table import Table

    from toolkit.results.against import TOLD

    shown = Table(title="Since the old results, on the same images", caption=TOLD, box=None, header_style="bold")
    shown.title_justify = shown.caption_justify = "left"
    for name in ("Encoder", "Head", "Test", "images", "Before", "After", "Difference [95 %]", "Tells from"):
        shown.add_column(name, no_wrap=name not in ("Encoder", "Head"))
    for one in found.changes:
        figures = [f"{one.images:,}", f"{one.before:.3f}", f"{one.after:.3f}"]
        difference = f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
        shown.add_row(one.encoder_named, one.head, one.test_named, *figures, difference, f"{one.least:.3f}")
    print_table(shown)


def verdict(found: "Against", margin: float) -> str:
    """What the gate says, in a sentence or two."""
    worse = found.worse(margin)
    if worse:
        named = "; ".join(f"{one.name} {one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in worse)
        return f"Gate: {len(worse)} of {len(found.changes)} rows got worse by more than {margin:g}: {named}."
    said = f"Gate: none of {len(found.changes)} rows got worse by more than {margin:g} for sure."
    blind = [one for one in found.changes if one.least > margin]
    if not blind:
        return said
    most = max(one.least for one in blind)
    few = f"{len(blind)} of them have too few images to tell a loss of {margin:g} (80 % power)"
    return f"{said} But {few}: a loss of less than {most:.3f} may pass."


def as_facts(found: "Against") -> list[dict[str, Any]]:
    """The changes as JSON has them."""
    return [{**vars(one), "difference": one.difference} for one in found.changes]
