"""The workbook: a summary that reads without explanation, the whole table, definitions, settings."""

import io
from collections.abc import Mapping
from typing import Any

import polars as pl
import xlsxwriter
from xlsxwriter.utility import xl_col_to_name

from toolkit import columns
from toolkit.study import PER_CLASS, labels_of, left_out_means, over_seeds, summary

LARGE_DROP, SMALL_DROP = 0.10, 0.03
WIDEST = 60
LINE = 15  # height of a line, in points

ABOUT_SUMMARY = (
    "Base: test images of categories that training saw. Novel: images of the held-out category, which it never saw. "
    f"Drop is base minus novel accuracy: red from {LARGE_DROP:.0%} on, green up to {SMALL_DROP:.0%}."
)
ABOUT_MEANS = "Each category was held out in its turn; mean and worst accuracy over those categories."
ABOUT_SEEDS = (
    "Other seeds draw other training images, and decide all that is random in fine-tuning and in a network: mean and "
    "spread of the accuracy over them."
)

TERMS = {
    "Base, Novel": "Test images of the categories that training saw, and of the held-out one, which it never saw.",
    "from, to": "The ends of the 95 % interval (Wilson's) of the accuracy to their left.",
    "Standing": "best: the most accurate row of its group on these images. ≈ best: not distinguishable from it (exact "
    "McNemar test, p at least 0.05). Empty: worse than it.",
    "Drop": "Base minus novel accuracy: what an unseen category costs. A head at chance has nothing to lose.",
    "Study": "The figures of the study's own run (ViT-B/32, OpenAI weights), where the data is CIFAKE without cats.",
}

AFTER_CLASSES = {"train_per_label": "Train per label", "test_per_label": "Test per label", "seed": "Seed"}
AFTER_CLASSES |= {"chosen_by": "Chosen by", "pretrained": "Weights"}

Formats = dict[str, Any]


def workbook_bytes(table: pl.DataFrame) -> bytes:
    """The whole .xlsx file of a results table (`columns.RESULTS`). Text is always written as text, never a formula."""
    data = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": True}
    with xlsxwriter.Workbook(data, options) as book:
        formats = {
            "head": book.add_format(
                {"bold": True, "bg_color": "#E8EEF4", "bottom": 1, "text_wrap": True, "valign": "top"}
            ),
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
        _results_sheet(book.add_worksheet("Results"), table, formats)
        if len(means := left_out_means(table)):
            _means_sheet(book.add_worksheet("Leave-one-out"), means, formats)
        if len(spread := over_seeds(table)):
            _seeds_sheet(book.add_worksheet("Seeds"), spread, formats)
        _definitions_sheet(book.add_worksheet("Definitions"), formats)
        _settings_sheet(book.add_worksheet("Settings"), table, formats)
    return data.getvalue()


def summary_headings(labels: list[str]) -> dict[str, str]:
    """The summary sheet's columns in their order: the name in `study.summary` and the heading that people read."""
    names = {"dataset": "Data", "held_out": "Held out", "model": "Model", "encoder": "Encoder", "head": "Head"}
    names |= {"recipe": "Recipe"}
    for test, title in (("base", "Base"), ("novel", "Novel")):
        names |= {f"{test}_accuracy": f"{title} accuracy", f"{test}_accuracy_low": f"{title} from"}
        names |= {f"{test}_accuracy_high": f"{title} to", f"{test}_standing": f"{title} standing"}
    names |= {"drop": "Drop", "study_base": "Study: base accuracy", "study_novel": "Study: novel accuracy"}
    for test, title in (("base", "Base"), ("novel", "Novel")):
        for label in labels:
            named = {"support": "images"}
            names |= {f"{test}_{m}_{label}": f"{title} {label} {named.get(m, m)}" for m in PER_CLASS}
            for m in ("precision", "recall"):
                names[f"study_{test}_{m}_{label}"] = f"Study: {test} {label} {m}"
    return names | AFTER_CLASSES


def _summary_sheet(sheet: Any, table: pl.DataFrame, formats: Formats) -> None:
    wide = summary(table)
    names = {
        name: heading
        for name, heading in summary_headings(labels_of(table)).items()
        if name in wide.columns and not (name.startswith("study_") and wide[name].null_count() == len(wide))
    }
    sheet.write_string(0, 0, ABOUT_SUMMARY, formats["note"])
    _write_table(sheet, 1, wide.select(list(names)), formats, names)
    sheet.freeze_panes(2, list(names).index("head") + 1 if names else 0)
    sheet.set_row(1, LINE * max(len(heading.split()) for heading in names.values()))
    legible = sum(name in names for name in summary_headings([]) if name not in AFTER_CLASSES)
    sheet.print_area(0, 0, 1 + max(len(wide), 1), legible - 1)  # the other columns would make the print too small
    if len(wide):
        _colour_summary(sheet, list(names), 1 + len(wide), formats)


def _colour_summary(sheet: Any, names: list[str], last: int, formats: Formats) -> None:
    """Red and green drops (an empty cell is no drop), and a line above each new data set, held-out category, model."""
    drop = names.index("drop")
    cell = f"${xl_col_to_name(drop)}3"
    for rule, colour in ((f">={LARGE_DROP}", "bad"), (f"<={SMALL_DROP}", "good")):
        criteria = f"=AND(ISNUMBER({cell}),ROUND({cell},6){rule})"  # 0.9 - 0.8 is a little less than 0.1
        sheet.conditional_format(
            2, drop, last, drop, {"type": "formula", "criteria": criteria, "format": formats[colour]}
        )
    differs = "=OR($A3<>$A2,$B3<>$B2,$C3<>$C2)"
    sheet.conditional_format(
        2, 0, last, len(names) - 1, {"type": "formula", "criteria": differs, "format": formats["group"]}
    )


def _results_sheet(sheet: Any, table: pl.DataFrame, formats: Formats) -> None:
    _write_table(sheet, 0, table, {**formats, "share": formats["number"]})
    sheet.freeze_panes(1, 6)
    sheet.autofilter(0, 0, max(len(table), 1), len(table.columns) - 1)


def _means_sheet(sheet: Any, means: pl.DataFrame, formats: Formats) -> None:
    names = {"dataset": "Data", "model": "Model", "encoder": "Encoder", "head": "Head", "recipe": "Recipe"}
    names |= {"test": "Test", "categories": "Categories", "mean": "Mean accuracy", "worst": "Worst accuracy"}
    names |= {"worst_category": "Held out when worst", **AFTER_CLASSES}
    sheet.write_string(0, 0, ABOUT_MEANS, formats["note"])
    _write_table(sheet, 1, means.select(list(names)), formats, names)
    sheet.freeze_panes(2, 4)


def _seeds_sheet(sheet: Any, spread: pl.DataFrame, formats: Formats) -> None:
    names = {"dataset": "Data", "held_out": "Held out", "model": "Model", "encoder": "Encoder", "head": "Head"}
    names |= {"recipe": "Recipe", "test": "Test", "perturbation": "Perturbation", "test_data": "Test data"}
    names |= {"seeds": "Seeds", "mean": "Mean accuracy", "deviation": "Standard deviation", "lowest": "Lowest"}
    names |= {"highest": "Highest"} | {name: text for name, text in AFTER_CLASSES.items() if name != "seed"}
    sheet.write_string(0, 0, ABOUT_SEEDS, formats["note"])
    _write_table(sheet, 1, spread.select(list(names)), formats, names)
    sheet.freeze_panes(2, 5)


def _definitions_sheet(sheet: Any, formats: Formats) -> None:
    rows = [*TERMS.items(), *((name, meaning) for name, (_, meaning) in columns.RESULTS.items())]
    _write_table(sheet, 0, pl.DataFrame(rows, schema=["Column", "Meaning"], orient="row"), formats)
    sheet.set_column(1, 1, 130)
    sheet.freeze_panes(1, 0)


def _settings_sheet(sheet: Any, table: pl.DataFrame, formats: Formats) -> None:
    names = ["dataset", "held_out", "model", "pretrained", "encoder", "encoder_id", "recipe", "head", "choice"]
    names += ["chosen_by", "seed", "train_per_label", "test_per_label", "train_rows", "leaks_dropped"]
    names += ["code_version", "config_hash", "data_hash", "created"]
    _write_table(sheet, 0, table.select(names).unique(maintain_order=True), formats)
    sheet.freeze_panes(1, 0)


def _write_table(
    sheet: Any, top: int, frame: pl.DataFrame, formats: Formats, headings: Mapping[str, str] | None = None
) -> None:
    """Header in row `top`, rows below it, and widths that show everything; numbers as numbers, text as text."""
    sheet.set_landscape()
    sheet.fit_to_pages(1, 0)
    sheet.repeat_rows(top)
    for column, name in enumerate(frame.columns):
        heading = name if headings is None else headings[name]
        sheet.write_string(top, column, heading, formats["head"])
        values = frame[name].to_list()
        number_format = formats["share" if frame.schema[name] == pl.Float64 else "plain"]
        for row, value in enumerate(values, start=top + 1):
            if isinstance(value, str):
                sheet.write_string(row, column, value, formats["text"])
            elif value is not None and value == value:
                sheet.write_number(row, column, value, number_format)
        sheet.set_column(column, column, _width(heading, values))


def _width(heading: str, values: list[Any]) -> int:
    """In characters: the longest value, and each word of the heading, which wraps between its words."""
    word = max(len(part) for part in heading.split() or [""])
    longest = max((len(value) if isinstance(value, str) else 7 for value in values if value is not None), default=0)
    return min(max(longest, word) + 2, WIDEST)
