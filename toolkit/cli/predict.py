"""`predict`: apply the best saved head to your own images."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.declare import A_PATH, chosen, option, options, section
from toolkit.cli.group import Command
from toolkit.cli.options import as_json, layout_options, place_options
from toolkit.cli.output import bars, passed_over, print_json, print_table, say
from toolkit.cli.plans import reading_of
from toolkit.cli.predicted import TOP, counts, likeliest, table
from toolkit.errors import counted

if TYPE_CHECKING:
    import polars as pl

    from toolkit.data.manifest import Dataset
    from toolkit.prediction.kept_heads import HeadRecord
    from toolkit.prediction.predict import Predicted

NAMED, LOWEST = 10, 5
"""So many recalls are all said, else the lowest."""

as_csv = section("Output", option("--csv", "as_csv", is_flag=True, help="Print a CSV on standard output."))
output_options = section(
    "Output",
    option(
        "--copy-to",
        type=A_PATH,
        metavar="FOLDER",
        help="Copy the pictures into FOLDER/<label>/ and FOLDER/unsure/; nothing is moved, and no file replaced.",
    ),
    option("--html", type=A_PATH, metavar="FILE", help="Write a page with thumbnails, the least sure first."),
    as_csv,
)
device = chosen("device", "auto", "Where the model runs.")
rule_options = options(
    option(
        "--encoder", metavar="NAME", help="base, finetuned, or the start of an identity.  [default: the chosen head's]"
    ),
    option("--head", metavar="NAME", help="zero-shot, logreg, knn, …  [default: chosen by left-out categories]"),
    option(
        "--alpha",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Abstain, so that at most this share of each label's images is answered wrongly.",
    ),
    option(
        "--recall",
        metavar="LABEL=SHARE",
        help="Call other labels only so much that this share of the images of LABEL is still caught, as in FAKE=0.99.",
    ),
    option(
        "--fake-recall",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="The same of FAKE, or of the first of two labels.",
    ),
    option(
        "--calibrate",
        metavar="PATH",
        help="Calibrate on new images of this data set (as --data) instead of the training images: those of its train "
        "split, or all if it names no split.",
    ),
    layout_options,
)


@click.command(cls=Command, epilog="Example: python cli.py predict photos/ --recall FAKE=0.99")
@click.argument("images", nargs=-1, required=True)
@rule_options
@device
@place_options
@as_json
@output_options
def predict(
    images: tuple[str, ...], copy_to: Path | None, html: Path | None, as_json: bool, as_csv: bool, **asked: Any
) -> None:
    """Predict the label of IMAGES: files, folders, zips, or - for a list of paths on standard input.

    Uses the head of the last compare that left-out training categories rate best (log loss); no test image decides. An
    image is marked far if it is farther from its nearest training image than 99 % of the training images are from
    theirs.
    """
    from toolkit.data.sources import open_other
    from toolkit.data.sources.loose import open_loose
    from toolkit.prediction.predict import Request
    from toolkit.prediction.predict import predict as run

    alpha, calibrate = asked.pop("alpha"), asked.pop("calibrate")
    recall, recall_of = _recall(asked.pop("recall"), asked.pop("fake_recall"))
    reading = reading_of({name: asked.pop(name) for name in ("layout", "columns")})
    if alpha is not None and recall is not None:
        raise click.UsageError("--alpha and --recall are two different rules: choose one.")
    if calibrate and alpha is None and recall is None:
        raise click.UsageError("--calibrate belongs to --alpha or --recall.")
    if (reading.layout or reading.columns) and not calibrate:
        raise click.UsageError("--layout and --columns say how the data of --calibrate is read.")
    calibration = open_other(calibrate, "train", reading, asked["cache"]) if calibrate else None
    places = _listed(images)
    _require_elsewhere(copy_to, places)
    with bars() as progress:
        request = Request(alpha=alpha, recall=recall, recall_of=recall_of, calibration=calibration, **asked)
        dataset = open_loose(places)
        done = run(dataset, request, progress)
    show_predicted(done, dataset.passed_over, as_json, as_csv)
    for line in _kept_elsewhere(done, dataset, copy_to, html):
        say(line, as_json or as_csv)
    if not done.read:
        click.echo(f"Error: of {counted(len(done.images), 'image file')} none could be read.", err=True)
        sys.exit(2)


def _require_elsewhere(folder: Path | None, places: Sequence[str]) -> None:
    """Copies inside a folder that is predicted would be predicted the next time."""
    for place in places if folder else ():
        if Path(place).is_dir() and folder.resolve().is_relative_to(Path(place).resolve()):  # type: ignore[union-attr]
            raise click.UsageError(f"--copy-to {folder} is inside {place}, whose images are predicted: name another.")


def _kept_elsewhere(done: "Predicted", dataset: "Dataset", copy_to: Path | None, html: Path | None) -> list[str]:
    """Copy the pictures and write their page, if that is asked for; lines about both."""
    from toolkit.prediction import copies, page

    lines = []
    if copy_to:
        copied = copies.copy(done.images, dataset.read, copy_to)
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(copied.folders.items()))
        more = {"there already": copied.there, "not read again": copied.gone}
        rest = "".join(f"; {count:,} {why}" for why, count in more.items() if count)
        lines.append(f"Copied to {copy_to}: {counts or 'nothing'}{rest}.")
    if html:
        page.write(html, done, dataset.read, rests_on(done))
        lines.append(f"Written: {html} (open it in a browser).")
    return lines


def _recall(named: str | None, of_fake: float | None) -> tuple[float | None, str | None]:
    """The share that --recall or --fake-recall asks for, and of which label; none for the head's own first one."""
    if named is None:
        return of_fake, None
    label, _, share = named.rpartition("=")
    try:
        wanted = float(share)
    except ValueError:
        wanted = 0.0
    if not label.strip() or not 0 < wanted < 1:
        raise click.UsageError(f"--recall {named!r} is not LABEL=SHARE with a share between 0 and 1, as in FAKE=0.99.")
    if of_fake is not None:
        raise click.UsageError("--recall and --fake-recall ask for the same: choose one.")
    return wanted, label.strip()


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
    about["chosen_by"] = done.pick.chosen_by
    names = record.labels.names
    if as_json:
        print_json([{**_as_object(row, names), **about} for row in images.iter_rows(named=True)])
    elif as_csv:
        from toolkit.results.tables import csv_bytes

        frame = images.drop("probabilities").with_columns(*(_tops(images, names) if len(names) > 2 else []))
        frame = frame.with_columns(**{name: pl.lit(value) for name, value in about.items()})
        click.echo(csv_bytes(frame), nl=False)
    else:
        print_table(table(done))
        click.echo(counts(done))


def _as_object(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A row as JSON has it: what is open as a list, and P by label, the likeliest first."""
    shares = dict(likeliest(row["probabilities"], names))
    return {**row, "open": row["open"].split("|") if row["open"] else [], "probabilities": shares or None}


def _tops(images: "pl.DataFrame", names: Sequence[str]) -> "list[pl.Series]":
    """The `TOP` likeliest labels as columns of a CSV: label_1, p_1, label_2, …"""
    import polars as pl

    nothing: list[Any] = [(None, None)] * TOP
    ordered = [likeliest(one, names)[:TOP] or nothing for one in images["probabilities"].to_list()]
    labels = [pl.Series(f"label_{n + 1}", [one[n][0] for one in ordered], dtype=pl.String) for n in range(TOP)]
    shares = [pl.Series(f"p_{n + 1}", [one[n][1] for one in ordered], dtype=pl.Float64) for n in range(TOP)]
    return [column for pair in zip(labels, shares, strict=True) for column in pair]


def rests_on(done: "Predicted") -> list[str]:
    """Lines about the head and its measured accuracy."""
    from toolkit.data.held_out import LABEL, NONE, in_words
    from toolkit.data.labels import some

    record = done.head.record
    held_out = "" if record.held_out == NONE else f" without {in_words(record.held_out, record.by)}"
    groups = f" ({', '.join(record.train_groups)})" if record.train_groups else ""
    warning = f"{done.pick.hardly_better} " if done.pick.hardly_better else ""
    lines = [
        f"{_in_words(record)}: {done.pick.chosen_by}. {warning}"
        f"It learned from {record.train_rows:,} images of {record.dataset}{held_out}{groups}.",
        f"Measured accuracy: {'; '.join(_accuracies(done))}. On other kinds of images its accuracy is unknown.",
    ]
    if record.equalise:
        lines.append(f"Every image is first equalised by {record.equalise}, as those that it learned from.")
    if done.pick.log_loss is not None and done.pick.seen:
        lines.append(
            "Fine-tuned encoders saw the training images, so these cannot rate their heads. --encoder finetuned takes "
            "one as it is; finetune --choose leaves some images out, and rates its zero-shot."
        )
    if record.by == LABEL and record.held_out != NONE:
        lines.append(f"It answers {some(record.labels.names)} alone, never a label that was held out.")
    if done.rule.note:
        lines += [done.rule.note, *_measured(done)]
    far = int(done.images["far"].sum())
    if far:
        are, whose = ("is", "its label") if far == 1 else ("are", "their labels")
        of = counted(done.read, "image")
        lines.append(f"{far:,} of {of} {are} far from everything in training: do not trust {whose}.")
    if done.read and done.images["far"].count() == 0:
        lines.append("The cache no longer holds the training images, so no image can be called far.")
    return lines


def _in_words(record: "HeadRecord") -> str:
    """`A logistic regression (logreg) on the blocks of nano, fine-tuned (study)`: the head and its encoder."""
    from toolkit.encoders.features import WITHOUT_MODEL
    from toolkit.heads import WORDS

    encoder = record.encoder
    words = WORDS.get(record.head, record.head)
    trained = f", fine-tuned ({encoder.trained_on.recipe})" if encoder.trained_on else " as published"
    sees = f"the {encoder.sees}"
    of = "" if encoder.sees in WITHOUT_MODEL else f" of {encoder.model}{trained}"
    return f"{words[0].upper()}{words[1:]} ({record.head}) on {sees}{of}"


def _accuracies(done: "Predicted") -> list[str]:
    from toolkit.data.held_out import LABEL

    record = done.head.record
    what = "held-out labels, told apart among themselves" if record.by == LABEL else record.held_out
    names = {"base": "base", "novel": f"{what} (novel)"}
    return [
        f"{names[test]} {figures['accuracy']:.3f} [{figures['accuracy_low']:.2f}–{figures['accuracy_high']:.2f}]"
        for test, figures in record.tests.items()
    ]


def _measured(done: "Predicted") -> list[str]:
    lines = []
    for test, figures in done.rule.measured.items():
        recalls = _recalls(figures["recall"])
        line = f"  measured on {figures['images']:,} {test} test images: "
        if done.rule.abstains:
            right = "–" if figures["right"] is None else f"{figures['right']:.3f}"
            line += f"coverage {figures['coverage']:.3f}, answered {figures['answered']:.3f}, of these right {right}; "
        lines.append(line + f"recall {recalls}")
    return lines


def _recalls(recalls: Mapping[str, float]) -> str:
    """All of them; of many the lowest, and how many there are."""
    lowest = sorted(recalls.items(), key=lambda one: one[1])[:LOWEST] if len(recalls) > NAMED else recalls.items()
    said = ", ".join(f"{label} {recall:.3f}" for label, recall in lowest)
    return said if len(recalls) <= NAMED else f"{said}, the lowest of {len(recalls)}"
