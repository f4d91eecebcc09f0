"""Write a table on a sheet of the workbook."""

import textwrap
from collections.abc import Mapping
from typing import Any

import polars as pl

from toolkit.data.labels import some
from toolkit.results.classes import labels_of_row

WIDEST = 60
LINE = 15  # height of a line, in points
MOST_ROWS, LONGEST = 1_048_576 - 10, 32_767
"""Excel's limits: rows per sheet, characters per cell. CSV and Parquet have everything."""
NO_SHARE = ("log_loss", "auc", "average_precision", "calibration_error", "_seconds", "_ms")
"""Figures that are not shown in percent."""

Formats = dict[str, Any]


NAMED = {"dataset": "Data", "held_out": "Held out", "model": "Model", "encoder": "Encoder", "head": "Head"}
NAMED |= {"recipe": "Recipe", "test": "Test", "seed": "Seed", "train_per_label": "Train per label"}
NAMED |= {"test_per_label": "Test per label", "chosen_by": "Chosen by", "pretrained": "Weights", "labels": "Labels"}
NAMED |= {"study": "Images (hash)", "encoder_id": "Frozen encoder (hash)"}
"""What people read above the columns that say which row it is."""
WHICH = ("dataset", "held_out", "model", "encoder", "head", "recipe")


def named(*columns: str) -> dict[str, str]:
    """These columns of `NAMED`, in this order."""
    return {name: NAMED[name] for name in columns}


def write_with_note(
    sheet: Any, note: str, frame: pl.DataFrame, formats: Formats, headings: Mapping[str, str], fixed: str
) -> None:
    """Write a note, and below it the columns of `headings` as a table. The columns up to `fixed` do not scroll away."""
    sheet.write_string(0, 0, note[:LONGEST], formats["note"])
    write_table(sheet, 1, frame.select(list(headings)), formats, headings)
    sheet.freeze_panes(2, list(headings).index(fixed) + 1 if fixed in headings else 0)


def write_table(
    sheet: Any, top: int, frame: pl.DataFrame, formats: Formats, headings: Mapping[str, str] | None = None
) -> None:
    """Write the header in row `top` and the rows below it, with fitting column widths; text is never a formula."""
    sheet.set_landscape()
    sheet.fit_to_pages(1, 0)
    sheet.repeat_rows(top)
    frame = frame.head(MOST_ROWS)
    if headings is not None and "labels" in frame.columns:
        frame = frame.with_columns(labels_as_text(frame["labels"]))
    lines = 1
    for column, name in enumerate(frame.columns):
        heading = name if headings is None else headings[name]
        values = frame[name].to_list()
        sheet.write_string(top, column, heading, formats["head" if frame.schema[name] == pl.String else "number_head"])
        number_format = formats[_format_of(name, frame.schema[name])]
        for row, value in enumerate(values, start=top + 1):
            if isinstance(value, str):
                sheet.write_string(row, column, value[:LONGEST], formats["text"])
            elif value is not None and value == value:
                sheet.write_number(row, column, value, number_format)
        width = _width(heading, values)
        lines = max(lines, len(textwrap.wrap(heading, width - 1)))
        sheet.set_column(column, column, width)
    sheet.set_row(top, LINE * lines)


def _format_of(name: str, kind: pl.DataType) -> str:
    if kind != pl.Float64:
        return "plain"
    return "number" if name.endswith(NO_SHARE) else "share"


def labels_as_text(labels: pl.Series) -> pl.Series:
    """The column `labels` (JSON) as text: `FAKE, REAL`; of many labels, only the first ones."""
    return pl.Series("labels", [some(labels_of_row(text)) for text in labels], dtype=pl.String)


def _width(heading: str, values: list[Any]) -> int:
    """Column width in characters: the longest value or word of the heading, which wraps between words."""
    word = max(len(part) for part in heading.split() or [""])
    longest = max((len(value) if isinstance(value, str) else 7 for value in values if value is not None), default=0)
    return min(max(longest, word) + 2, WIDEST)
