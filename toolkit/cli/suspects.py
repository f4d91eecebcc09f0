"""`data suspects`: images whose label is perhaps wrong."""

from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.declare import option
from toolkit.cli.group import Command
from toolkit.cli.options import as_json, plan_options
from toolkit.cli.output import print_json, print_table, watched
from toolkit.cli.plans import planned

if TYPE_CHECKING:
    from toolkit.pipeline.suspects import Found

MOST = 10


@click.command(cls=Command, epilog="Example: python cli.py data suspects --data photos/ --full --split none")
@plan_options
@option("--head", default="lda", show_default=True, metavar="NAME", help="The probe: lda, logreg, knn, …")
@option(
    "--leave-out",
    "left_out",
    type=click.Choice(["category", "folds"]),
    default="folds",
    show_default=True,
    help="How a training image is scored: by a probe that saw neither it nor a random fifth of the others, or none of "
    "its category.",
)
@as_json
def suspects(head: str, left_out: str, as_json: bool, **chosen: Any) -> None:
    """List images whose label is perhaps wrong: a probe that was not trained on them contradicts it.

    Looks at the training and test images that compare would take, and works from the cache: run embed first, with the
    same options. Writes suspects.csv, to be corrected, and suspects.html with pictures.
    """
    from toolkit.data.held_out import NONE
    from toolkit.errors import SelectionError, listed
    from toolkit.heads import check_names
    from toolkit.pipeline.suspects import find_suspects

    check_names([head])
    plans = planned(chosen, as_json)
    if len(plans) > 1:
        raise SelectionError("data suspects looks with one encoder: name one (--model).")
    with watched(plans[0]) as plan:
        found = find_suspects(plan, head, left_out)
    if as_json:
        print_json(found.images.to_dicts())
    else:
        _show(found)
        if (held_out := plans[0].held_out()) != [NONE]:
            unseen = f"The probe learned nothing of {listed(held_out)}"
            click.echo(f"{unseen}, so such test images look more suspicious than they are: --split none avoids that.")


def _show(found: "Found") -> None:
    """Print the first of each split, and where the rest is."""
    import polars as pl
    from rich.table import Table
    from rich.text import Text

    from toolkit.pipeline.suspects import calls

    click.echo(
        f"Scored by {found.head} on the {found.encoder.sees} of {found.encoder.model}, never trained on the image."
    )
    shown = Table("Split", "Rank", "Label", "P(label)", "Rather", "Image", box=None, header_style="bold")
    for split in ("train", "test"):
        mine = found.images.filter(pl.col("split") == split)
        for one in mine.head(MOST).iter_rows(named=True):
            rather = Text(one["suggested"] if one["suspect"] else "")
            cells: list[str | Text] = [
                str(one["rank"]),
                Text(one["label"]),
                f"{one['p_label']:.3f}",
                rather,
                Text(one["path"]),
            ]
            shown.add_row(split, *cells)
        click.echo(f"{split}: {calls(found.images, split)}")
    print_table(shown)
    if found.images["rank"].max() > MOST:  # type: ignore[operator]
        click.echo(f"Only the first {MOST} of each split are shown; the rest is in these files.")
    click.echo(f"Written: {found.page} (pictures) and {found.table} (every image: correct its column label).")
