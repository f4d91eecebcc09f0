"""The workbook: a summary, the whole table, definitions, settings.

Cells are written one by one instead of with polars' write_excel, which makes Excel tables. Their headings ignore case,
so for labels like `cat` and `Cat` xlsxwriter leaves the sheet empty. It would save 2 of 24 lines, and takes 0.74 s
instead of 0.51 s for 2,400 rows.
"""

import io
from collections.abc import Collection
from typing import Any

import polars as pl
import xlsxwriter
from xlsxwriter.utility import xl_col_to_name

from toolkit.evaluation import columns
from toolkit.results import class_sheets, costs, learning
from toolkit.results.classes import HARMONIC_MEAN, MACRO, has_more_than_two
from toolkit.results.notes import notes
from toolkit.results.sheets import WHICH, Formats, named, write_table, write_with_note
from toolkit.results.summary import (
    LEFT_OUT,
    PER_CLASS,
    against_study,
    left_out_means,
    over_seeds,
    summary,
    two_labels_of,
)

LARGE_DROP, SMALL_DROP = 0.10, 0.03
SHEETS_OF_PAPER = 4
ONLY_OF_MANY = [name for name in MACRO if name != "roc_auc"]

ABOUT_SUMMARY = (
    "Base: test images of categories that training saw. Novel: images of the held-out category, which it never saw. "
    f"Drop is base minus novel accuracy: red from {LARGE_DROP:.0%} on, green up to {SMALL_DROP:.0%}."
)
ABOUT_CHANGED = (
    "The same heads on perturbed test images, and on those of other data. Loss is unchanged minus changed accuracy: "
    f"red from {LARGE_DROP:.0%} on, green up to {SMALL_DROP:.0%}."
)
ABOUT_MEANS = "Each category was held out in its turn; mean and worst accuracy over those categories."
ABOUT_SEEDS = (
    "Seeds from 1 on draw other training images, and seed fine-tuning and networks: mean and spread of the accuracy "
    "over them. Seed 0, which takes the first images, is not among them."
)

ABOUT_CURVES = (
    "Mean accuracy over the seeds by the number of training images of each label, all on the same test images. Gain is "
    "against the prompts of the frozen encoder; from, to: its 95 % interval over test images and seeds."
)

TERMS = {
    "Base, Novel": "Test images of the categories that training saw, and of the held-out one, which it never saw.",
    "from, to": "The ends of the 95 % interval (Wilson's) of the accuracy to their left.",
    "Standing": "best: the most accurate row of its group on these images. ≈ best: as good, since the paired 95 % "
    "interval of the difference is above minus the margin. not told apart: neither as good nor worse for sure (p at "
    "least 0.05, corrected for picking the best of all rows on these images). Empty: worse than it.",
    "Accuracy at chosen threshold": "The same head where it calls an image by the threshold that left-out training "
    "images chose; the accuracy beside it is at P = 0.5. Empty for fine-tuned encoders, which saw these images.",
    "Changed by, Loss": "What was done to the test images before they were embedded, and how much accuracy that costs.",
    "Against the study's way": "Mean accuracy minus that of zero-shot on the encoder fine-tuned by the recipe study, "
    "on the same images; from, to: its paired 95 % interval for these categories, images being drawn anew.",
    "Mean from, Mean to, By category": "95 % intervals (Student's t) whose unit is the held-out category: what to "
    "expect of a category that nobody trained on. p by category: sign-flip test over the categories. Empty on base, "
    "where the categories share most of their images.",
    "Images (hash)": "Lines where it differs are about other images, or hold nothing out: they are never compared.",
    "Drop": "Base minus novel accuracy: the loss on an unseen category. A head at chance has nothing to lose.",
    "Study": "The figures of the study's own run (ViT-B/32, OpenAI weights), where the data is CIFAKE without cats.",
}

AFTER_CLASSES = named("train_per_label", "test_per_label", "seed", "chosen_by", "pretrained", "labels", "study")

HEAD = {"bold": True, "bg_color": "#E8EEF4", "bottom": 1, "text_wrap": True, "valign": "bottom"}

CHANGED = {**named(*WHICH, "seed", "test"), "perturbation": "Changed by", "test_data": "Test data"}
CHANGED |= {"accuracy": "Accuracy", "accuracy_low": "from", "accuracy_high": "to", "roc_auc": "ROC AUC"}
CHANGED |= {"unchanged": "Unchanged accuracy", "loss": "Loss", "support": "Images", **named("labels", "study")}


def workbook_bytes(table: pl.DataFrame, predictions: pl.DataFrame | None = None) -> bytes:
    """The whole .xlsx file of a results table (`columns.RESULTS`) and, for paired differences, its predictions.

    Text is always written as text, never a formula.
    """
    data = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": True}
    with xlsxwriter.Workbook(data, options) as book:
        formats = {
            "head": book.add_format({**HEAD, "align": "left", "indent": 1}),
            "number_head": book.add_format({**HEAD, "align": "right"}),
            "share": book.add_format({"num_format": "0.0%"}),
            "number": book.add_format({"num_format": "0.0000"}),
            "plain": book.add_format({}),
            "text": book.add_format({"indent": 1}),
            "note": book.add_format({"italic": True, "font_color": "#555555"}),
            "bad": book.add_format({"bg_color": "#F8D7DA"}),
            "good": book.add_format({"bg_color": "#D9EFDC"}),
            "group": book.add_format({"top": 1}),
        }
        _summary_sheet(book.add_worksheet("Summary"), table, formats)
        class_sheets.add(book, table, predictions, formats)
        if len(paid := costs.cost_table(table)):
            write_with_note(book.add_worksheet("Cost"), costs.ABOUT, paid, formats, costs.HEADINGS, "head")
        _results_sheet(book.add_worksheet("Results"), table, formats)
        if len(means := left_out_means(table)):
            against = None if predictions is None else against_study(table, predictions)
            _means_sheet(book.add_worksheet("Leave-one-out"), means, against, formats)
        if len(spread := over_seeds(table)):
            _seeds_sheet(book.add_worksheet("Seeds"), spread, formats)
        if len(curves := learning_curves(table, predictions)):
            write_with_note(book.add_worksheet("Learning curves"), ABOUT_CURVES, curves, formats, CURVES, "head")
        if len(changed := changed_images(table)):
            _changed_sheet(book.add_worksheet("Changed images"), changed, formats)
        _definitions_sheet(book.add_worksheet("Definitions"), formats)
        _settings_sheet(book.add_worksheet("Settings"), table, formats)
    return data.getvalue()


def summary_headings(labels: list[str], first: Collection[str] = ()) -> dict[str, str]:
    """The summary sheet's columns in their order: the name in `summary.summary` and the heading that people read.

    Those of `AFTER_CLASSES` in `first` come after the recipe, so that what distinguishes lines is visible.
    """
    names = named(*WHICH, *(name for name in AFTER_CLASSES if name in first))
    for test, title in (("base", "Base"), ("novel", "Novel")):
        names |= {f"{test}_accuracy": f"{title} accuracy", f"{test}_accuracy_low": f"{title} from"}
        names |= {f"{test}_accuracy_high": f"{title} to", f"{test}_standing": f"{title} standing"}
        names |= {f"{test}_roc_auc": f"{title} ROC AUC"}
        names |= {f"{test}_{columns.AT_THRESHOLD}": f"{title} accuracy at chosen threshold"}
        names |= {f"{test}_{name}": f"{title} {MACRO[name][0].lower()}{MACRO[name][1:]}" for name in ONLY_OF_MANY}
    names |= {
        "harmonic_mean": HARMONIC_MEAN,
        "drop": "Drop",
        "study_base": "Study: base accuracy",
        "study_novel": "Study: novel accuracy",
    }
    for test, title in (("base", "Base"), ("novel", "Novel")):
        for label in labels:
            called = {"support": "images"}
            names |= {f"{test}_{m}_{label}": f"{title} {label} {called.get(m, m)}" for m in PER_CLASS}
            for m in ("precision", "recall"):
                names[f"study_{test}_{m}_{label}"] = f"Study: {test} {label} {m}"
    return names | AFTER_CLASSES


def _summary_sheet(sheet: Any, table: pl.DataFrame, formats: Formats) -> None:
    wide = summary(table)
    telling, many = _telling(wide), len(table.filter(has_more_than_two(table))) > 0
    names = {
        name: heading
        for name, heading in summary_headings(two_labels_of(table), telling).items()
        if name in wide.columns
        and (many or name.partition("_")[2] not in ONLY_OF_MANY)
        and not (_may_lack(name) and wide[name].null_count() == len(wide))
    }
    write_with_note(sheet, " ".join([ABOUT_SUMMARY, *notes(table)]), wide, formats, names, "head")
    at_the_end = set(AFTER_CLASSES).difference(telling)
    legible = sum(name in names and name not in at_the_end for name in summary_headings([], telling))
    sheet.print_area(0, 0, 1 + max(len(wide), 1), legible - 1)  # the other columns would make the print too small
    if len(wide):
        _colour_summary(sheet, list(names), 1 + len(wide), formats)


def _may_lack(name: str) -> bool:
    """Whether a column is left out where it is empty: the study's figures, AUC and threshold, those of many labels."""
    lack = (*ONLY_OF_MANY, "roc_auc", columns.AT_THRESHOLD)
    return name.startswith("study_") or name.partition("_")[2] in lack or name == "harmonic_mean"


def _telling(wide: pl.DataFrame) -> list[str]:
    """The settings that differ between lines, ignoring how a head without a choice chose."""
    return [name for name in AFTER_CLASSES if len({*wide[name]} - {""}) > 1]


def _colour_summary(sheet: Any, names: list[str], last: int, formats: Formats) -> None:
    """Colour drops red and green (empty cells: not), and draw a line above each new data set, held-out value and
    model."""
    _colour_drops(sheet, names.index("drop"), last, formats)
    differs = "=OR($A3<>$A2,$B3<>$B2,$C3<>$C2)"
    sheet.conditional_format(
        2, 0, last, len(names) - 1, {"type": "formula", "criteria": differs, "format": formats["group"]}
    )


def _colour_drops(sheet: Any, column: int, last: int, formats: Formats) -> None:
    cell = f"${xl_col_to_name(column)}3"
    for rule, colour in ((f">={LARGE_DROP}", "bad"), (f"<={SMALL_DROP}", "good")):
        criteria = f"=AND(ISNUMBER({cell}),ROUND({cell},6){rule})"  # 0.9 - 0.8 is a little less than 0.1
        sheet.conditional_format(
            2, column, last, column, {"type": "formula", "criteria": criteria, "format": formats[colour]}
        )


def _results_sheet(sheet: Any, table: pl.DataFrame, formats: Formats) -> None:
    write_table(sheet, 0, table, {**formats, "share": formats["number"]})
    sheet.fit_to_pages(SHEETS_OF_PAPER, 0)  # on one, nobody could read it
    sheet.repeat_columns(0, 5)
    sheet.freeze_panes(1, 6)
    sheet.autofilter(0, 0, max(len(table), 1), len(table.columns) - 1)


def _means_sheet(sheet: Any, means: pl.DataFrame, against: pl.DataFrame | None, formats: Formats) -> None:
    names = {**named("dataset", "model", "encoder", "head", "recipe", "test"), "categories": "Categories"}
    names |= {"mean": "Mean accuracy"}
    names |= {"mean_low": "Mean from", "mean_high": "Mean to", "auc": "Mean AUC"}
    names |= {"worst": "Worst accuracy", "worst_category": "Held out when worst"}
    if against is not None and len(against):
        means = means.join(against, on=LEFT_OUT, how="left", nulls_equal=True, maintain_order="left")
        names |= {"difference": "Against the study's way", "difference_low": "Difference from"}
        names |= {"difference_high": "Difference to", "categories_low": "By category from"}
        names |= {"categories_high": "By category to", "p_categories": "p by category", "wins": "Wins"}
        names |= {"losses": "Losses"}
    names |= {**AFTER_CLASSES, **named("encoder_id")}
    write_with_note(sheet, ABOUT_MEANS, means, formats, names, "head")


def _seeds_sheet(sheet: Any, spread: pl.DataFrame, formats: Formats) -> None:
    names = {**named(*WHICH, "test"), "perturbation": "Perturbation", "test_data": "Test data"}
    names |= {"seeds": "Seeds", "mean": "Mean accuracy", "deviation": "Standard deviation", "lowest": "Lowest"}
    names |= {"highest": "Highest", "auc": "Mean AUC"}
    names |= {name: text for name, text in AFTER_CLASSES.items() if name != "seed"} | named("encoder_id")
    write_with_note(sheet, ABOUT_SEEDS, spread, formats, names, "head")


CURVES = named("dataset", "model", "encoder", "head", "recipe", "test", "train_per_label")
CURVES |= {"seeds": "Seeds", "mean": "Mean accuracy"}
CURVES |= {"deviation": "Standard deviation", "gain": "Gain over prompts", "low": "Gain from", "high": "Gain to"}


def learning_curves(table: pl.DataFrame, predictions: pl.DataFrame | None) -> pl.DataFrame:
    """One line for each learning curve's encoder, head, test set and size: the columns of `CURVES`."""
    frames = []
    for curve in learning.find(table, predictions) if predictions is not None else ():
        prompts = curve.best("prompt")
        pairs = curve.points.select("entrant", "test").unique(maintain_order=True).rows() if prompts else []
        gains = [
            (entrant, test, one.size, one.mean, one.low, one.high)
            for entrant, test in pairs
            if entrant != prompts
            for one in curve.gains(entrant, str(prompts), test)
        ]
        kinds = {"entrant": pl.String, "test": pl.String, "train_per_label": pl.Int64}
        kinds |= {name: pl.Float64 for name in ("gain", "low", "high")}
        against = pl.DataFrame(gains, schema=kinds, orient="row")
        about = {name: pl.lit(curve.about[name]) for name in ("dataset", "model")}
        joined = curve.points.join(
            against, on=["entrant", "test", "train_per_label"], how="left", maintain_order="left"
        )
        frames.append(joined.with_columns(**about).select(list(CURVES)))
    return pl.concat(frames) if frames else pl.DataFrame(schema=list(CURVES))


def changed_images(table: pl.DataFrame) -> pl.DataFrame:
    """A line for each row on perturbed images or other data: its `accuracy`, `unchanged` for the same head on the
    unchanged test set, and `loss`, their difference. The last two are null if there is no such row."""
    every = columns.unadapted(table).filter(pl.col("class") == "all")
    same = [name for name in columns.KEY if name not in ("perturbation", "test_data")]
    plain = columns.ordinary(every).select(*same, unchanged="accuracy")
    changed = every.join(columns.ordinary(every), on=columns.KEY, how="anti", nulls_equal=True)
    joined = changed.join(plain, on=same, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(loss=pl.col("unchanged") - pl.col("accuracy"))


def _changed_sheet(sheet: Any, changed: pl.DataFrame, formats: Formats) -> None:
    write_with_note(sheet, ABOUT_CHANGED, changed, formats, CHANGED, "head")
    _colour_drops(sheet, list(CHANGED).index("loss"), 1 + len(changed), formats)


def _definitions_sheet(sheet: Any, formats: Formats) -> None:
    rows = [*TERMS.items(), *((name, meaning.replace("`", "")) for name, (_, meaning) in columns.RESULTS.items())]
    write_table(sheet, 0, pl.DataFrame(rows, schema=["Column", "Meaning"], orient="row"), formats)
    sheet.set_column(1, 1, 130)
    sheet.freeze_panes(1, 0)


def _settings_sheet(sheet: Any, table: pl.DataFrame, formats: Formats) -> None:
    names = ["dataset", "held_out", "model", "pretrained", "encoder", "encoder_id", "recipe", "head", "choice"]
    names += ["chosen_by", "seed", "train_per_label", "test_per_label", "train_rows", "leaks_dropped"]
    names += ["labels", "split_by", "code_version", "config_hash", "data_hash", "created"]
    write_table(sheet, 0, table.select(names).unique(maintain_order=True), formats)
    sheet.fit_to_pages(2, 0)
    sheet.freeze_panes(1, 0)
