"""The workbook: a summary that reads without explanation, the whole table, definitions, settings."""

import io
from typing import Any

import polars as pl
import xlsxwriter

from toolkit import columns
from toolkit.study import labels_of, left_out_means, summary

ABOUT_SUMMARY = (
    "Base: test images of categories that training saw. Novel: of the held-out category, which it never saw. "
    "Brackets are 95 % intervals. Drop is base minus novel accuracy."
)
LARGE_DROP, SMALL_DROP = 0.10, 0.03


def workbook_bytes(table: pl.DataFrame) -> bytes:
    """The whole .xlsx file of a results table. Text is always written as text, never as a formula."""
    data = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": True}
    with xlsxwriter.Workbook(data, options) as book:
        formats = {
            "head": book.add_format({"bold": True, "bg_color": "#E8EEF4", "bottom": 1, "text_wrap": True}),
            "share": book.add_format({"num_format": "0.0%"}),
            "number": book.add_format({"num_format": "0.0000"}),
            "plain": book.add_format({}),
            "note": book.add_format({"italic": True, "font_color": "#555555"}),
            "bad": book.add_format({"bg_color": "#F8D7DA"}),
            "good": book.add_format({"bg_color": "#D9EFDC"}),
        }
        _summary_sheet(book.add_worksheet("Summary"), table, formats)
        _results_sheet(book.add_worksheet("Results"), table, formats)
        if len(means := left_out_means(table)):
            _means_sheet(book.add_worksheet("Leave-one-out"), means, formats)
        _definitions_sheet(book.add_worksheet("Definitions"), formats)
        _settings_sheet(book.add_worksheet("Settings"), table, formats)
    return data.getvalue()


def _summary_sheet(sheet: Any, table: pl.DataFrame, formats: dict[str, Any]) -> None:
    wide, labels = summary(table), labels_of(table)
    names = {"encoder": "Encoder", "head": "Head", "recipe": "Recipe", "base_accuracy": "Base accuracy"}
    names |= {"base_accuracy_low": "from", "base_accuracy_high": "to", "novel_accuracy": "Novel accuracy"}
    names |= {"novel_accuracy_low": "from ", "novel_accuracy_high": "to ", "drop": "Drop"}
    names |= {"study_base": "Study: base", "study_novel": "Study: novel"}
    for test in ("base", "novel"):
        for label in labels:
            names |= {f"{test}_{m}_{label}": f"{test.capitalize()} {label} {m}" for m in ("precision", "recall", "f1")}
            names[f"{test}_support_{label}"] = f"{test.capitalize()} {label} images"
    names |= {"dataset": "Data", "held_out": "Held out", "model": "Model", "train_per_label": "Train per label"}
    names |= {"test_per_label": "Test per label", "seed": "Seed", "chosen_by": "Chosen by", "pretrained": "Weights"}
    sheet.write_string(0, 0, ABOUT_SUMMARY, formats["note"])
    _write_table(sheet, 1, wide.select(list(names)).rename(names), formats)
    sheet.freeze_panes(2, 2)
    drop, last = list(names).index("drop"), 1 + max(len(wide), 1)
    large = {"type": "cell", "criteria": ">=", "value": LARGE_DROP, "format": formats["bad"]}
    small = {"type": "cell", "criteria": "between", "minimum": -1, "maximum": SMALL_DROP, "format": formats["good"]}
    for rule in (large, small):
        sheet.conditional_format(2, drop, last, drop, rule)


def _results_sheet(sheet: Any, table: pl.DataFrame, formats: dict[str, Any]) -> None:
    _write_table(sheet, 0, table, {**formats, "share": formats["number"]})
    sheet.freeze_panes(1, 6)
    sheet.autofilter(0, 0, max(len(table), 1), len(table.columns) - 1)


def _means_sheet(sheet: Any, means: pl.DataFrame, formats: dict[str, Any]) -> None:
    _write_table(sheet, 0, means, formats)
    sheet.freeze_panes(1, 0)


def _definitions_sheet(sheet: Any, formats: dict[str, Any]) -> None:
    rows = [(name, meaning) for name, (_, meaning) in columns.RESULTS.items()]
    _write_table(sheet, 0, pl.DataFrame(rows, schema=["Column", "Meaning"], orient="row"), formats)
    sheet.set_column(1, 1, 110)
    sheet.freeze_panes(1, 0)


def _settings_sheet(sheet: Any, table: pl.DataFrame, formats: dict[str, Any]) -> None:
    names = ["dataset", "held_out", "model", "pretrained", "encoder", "encoder_id", "recipe", "head", "choice"]
    names += ["chosen_by", "seed", "train_rows", "leaks_dropped", "code_version", "config_hash", "data_hash", "created"]
    _write_table(sheet, 0, table.select(names).unique(maintain_order=True), formats)
    sheet.freeze_panes(1, 0)


def _write_table(sheet: Any, top: int, frame: pl.DataFrame, formats: dict[str, Any]) -> None:
    """Header, rows below it, and widths that show everything; numbers as numbers, text as text."""
    for column, name in enumerate(frame.columns):
        sheet.write_string(top, column, name, formats["head"])
        values = frame[name].to_list()
        is_share = frame.schema[name] == pl.Float64
        for row, value in enumerate(values, start=top + 1):
            if value is None or value != value:
                continue
            if isinstance(value, str):
                sheet.write_string(row, column, value)
            else:
                sheet.write_number(row, column, value, formats["share" if is_share else "plain"])
        longest = max([len(v) if isinstance(v, str) else 7 for v in values if v is not None], default=4)
        sheet.set_column(column, column, min(max(longest, min(len(name), 12), 6) + 2, 60))
