"""`predict`: apply the best saved head to your own images."""

import sys
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.group import Command
from toolkit.cli.options import (
    as_json,
    chosen,
    layout_options,
    option,
    options,
    place_options,
    reading_of,
    section,
)
from toolkit.cli.output import bars, passed_over, print_json, print_table, say

if TYPE_CHECKING:
    import polars as pl

    from toolkit.prediction.predict import Predicted

as_csv = section("Output", option("--csv", "as_csv", is_flag=True, help="Print a CSV on standard output."))
device = chosen("device", "auto", "Where the model runs.")
rule_options = options(
    option(
        "--encoder", metavar="NAME", help="base, finetuned, or the start of an identity.  [default: the best head's]"
    ),
    option("--head", metavar="NAME", help="zero-shot, logreg, knn, …  [default: the best of the last compare]"),
    option(
        "--alpha",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Abstain, so that at most this share of each label's images is answered wrongly.",
    ),
    option(
        "--fake-recall",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Call REAL only so much that this share of FAKE images (of the first label's) is still caught.",
    ),
    option(
        "--calibrate",
        metavar="PATH",
        help="Calibrate on new images of this data set (as --data) instead of the training images: those of its train "
        "split, or all if it names no split.",
    ),
    layout_options,
)


@click.command(cls=Command, epilog="Example: python cli.py predict photos/ --fake-recall 0.99")
@click.argument("images", nargs=-1, required=True)
@rule_options
@device
@place_options
@as_json
@as_csv
def predict(images: tuple[str, ...], as_json: bool, as_csv: bool, **asked: Any) -> None:
    """Predict the label of IMAGES: files, folders, zips, or - for a list of paths on standard input.

    Uses the head of the last compare with the highest accuracy on novel images. An image is marked far if it is farther
    from its nearest training image than 99 % of the training images are from theirs.
    """
    from toolkit.data.sources import open_other
    from toolkit.data.sources.loose import open_loose
    from toolkit.prediction.predict import Request
    from toolkit.prediction.predict import predict as run

    alpha, recall, calibrate = (asked.pop(name) for name in ("alpha", "fake_recall", "calibrate"))
    reading = reading_of({name: asked.pop(name) for name in ("layout", "columns")})
    if alpha is not None and recall is not None:
        raise click.UsageError("--alpha and --fake-recall are two different rules: choose one.")
    if calibrate and alpha is None and recall is None:
        raise click.UsageError("--calibrate belongs to --alpha or --fake-recall.")
    if (reading.layout or reading.columns) and not calibrate:
        raise click.UsageError("--layout and --columns say how the data of --calibrate is read.")
    calibration = open_other(calibrate, "train", reading) if calibrate else None
    with bars() as progress:
        request = Request(alpha=alpha, first_recall=recall, calibration=calibration, **asked)
        dataset = open_loose(_listed(images))
        done = run(dataset, request, progress)
    show_predicted(done, dataset.passed_over, as_json, as_csv)
    if not done.read:
        click.echo(f"Error: none of {len(done.images):,} images could be read.", err=True)
        sys.exit(2)


def _listed(images: tuple[str, ...]) -> list[str]:
    """The given places; `-` stands for the lines of standard input."""
    lines = sys.stdin.read().splitlines() if "-" in images else []
    places = [place for one in images for place in (lines if one == "-" else [one])]
    return [place for place in places if place.strip()]


def show_predicted(done: "Predicted", others: "pl.DataFrame", as_json: bool, as_csv: bool) -> None:
    """Print the predictions, after lines about their head (on standard error for JSON and CSV). `others` (path, reason)
    are files not used: JSON and CSV list them, the table counts them."""
    import polars as pl

    images = pl.concat([done.images, others], how="diagonal")
    for line in [*rests_on(done), *passed_over(others)]:
        say(line, as_json or as_csv)
    record = done.head.record
    about = {"encoder": record.encoder.name, "head": record.head, "encoder_id": record.encoder.identity}
    if as_json:
        rows = images.to_dicts()
        print_json([{**row, "open": row["open"].split("|") if row["open"] else [], **about} for row in rows])
    elif as_csv:
        from toolkit.results.tables import csv_bytes

        frame = images.with_columns(**{name: pl.lit(value) for name, value in about.items()})
        click.echo(csv_bytes(frame), nl=False)
    else:
        print_table(_table(done))


def rests_on(done: "Predicted") -> list[str]:
    """Lines about the head and its measured accuracy."""
    record = done.head.record
    held_out = "" if record.held_out == "none" else f" without {record.held_out}"
    groups = f" ({', '.join(record.train_groups)})" if record.train_groups else ""
    recipe = f" ({record.encoder.trained_on.recipe})" if record.encoder.trained_on else ""
    chosen = f", the best of {done.rivals} of the last compare" if done.rivals > 1 else ""
    lines = [
        f"{record.head} on {record.encoder.name} {record.encoder.model}{recipe}{chosen}. "
        f"It learned from {record.train_rows:,} images of {record.dataset}{held_out}{groups}.",
        f"Measured accuracy: {'; '.join(_accuracies(done))}. On other kinds of images its accuracy is unknown.",
    ]
    if done.rule.note:
        lines += [done.rule.note, *_measured(done)]
    far = int(done.images["far"].sum())
    if far:
        lines.append(f"{far:,} of {done.read:,} images are far from everything in training: do not trust their labels.")
    if done.read and done.images["far"].count() == 0:
        lines.append("The cache no longer holds the training images, so no image can be called far.")
    return lines


def _accuracies(done: "Predicted") -> list[str]:
    record = done.head.record
    names = {"base": "base", "novel": f"{record.held_out} (novel)"}
    best = " (it was chosen for this figure, which flatters it)" if done.rivals > 1 else ""
    last = "novel" if "novel" in record.tests else "base"
    return [
        f"{names[test]} {figures['accuracy']:.3f} [{figures['accuracy_low']:.2f}–{figures['accuracy_high']:.2f}]"
        f"{best if test == last else ''}"
        for test, figures in record.tests.items()
    ]


def _measured(done: "Predicted") -> list[str]:
    lines = []
    for test, figures in done.rule.measured.items():
        recalls = ", ".join(f"{label} {recall:.3f}" for label, recall in figures["recall"].items())
        line = f"  measured on {figures['images']:,} {test} test images: "
        if done.rule.abstains:
            right = "–" if figures["right"] is None else f"{figures['right']:.3f}"
            line += f"coverage {figures['coverage']:.3f}, answered {figures['answered']:.3f}, of these right {right}; "
        lines.append(line + f"recall {recalls}")
    return lines


def _table(done: "Predicted") -> Any:
    from rich.table import Table

    shown = Table(box=None, header_style="bold")
    shown.add_column("Image", overflow="fold")
    for name in ("Label", f"P({done.head.record.labels.positive})", ""):
        shown.add_column(name)
    for row in done.images.iter_rows(named=True):
        if row["reason"]:
            shown.add_row(_plain(row["path"]), "–", "–", _plain(f"unreadable: {row['reason']}"))
            continue
        shown.add_row(
            _plain(row["path"]), row["label"] or "unsure", f"{row['p_real']:.3f}", "far" if row["far"] else ""
        )
    return shown


def _plain(text: str) -> Any:
    """Text in which square brackets are not markup."""
    from rich.text import Text

    return Text(text)
