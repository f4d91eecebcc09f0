"""How each comparison in a results folder was made (`run.json`), so that the page can tell how to repeat it."""

import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock

from toolkit.evaluation import columns
from toolkit.results import version_1
from toolkit.storage.damage import record_if_whole
from toolkit.storage.records import write_record

RUNS = "run.json"
LIBRARIES = ("torch", "open_clip_torch", "scikit-learn", "faiss-cpu", "numpy", "pillow", "polars")


def note(folder: Path, table: pl.DataFrame, facts: Mapping[str, Any]) -> None:
    """Store `facts` (JSON-able) for each comparison of `table`, replacing earlier ones.

    A damaged record is replaced. Safe with concurrent processes. Raises CacheError if the folder cannot be written.
    """
    with FileLock(folder / ".run.lock"):
        known = read(folder)
        write_record(folder / RUNS, known | dict.fromkeys(_names(table), {**facts, **machine()}))


def read(folder: Path) -> dict[str, Any]:
    """The stored facts by the comparison's name (`name_of`); empty if the record is missing or damaged."""
    return record_if_whole(folder / RUNS, "compare notes anew what its rows were made with") or {}


def name_of(row: Mapping[str, Any]) -> str:
    """The name of a row's comparison: its values of `columns.COMPARISON` as one text."""
    return json.dumps([row[name] for name in columns.COMPARISON])


def of(noted: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stored facts (`read`) of a row's comparison, also those of version 1; empty if there are none."""
    name_in_version_1 = json.dumps([row[name] for name in version_1.COMPARISON])
    known: Mapping[str, Any] = noted.get(name_of(row)) or noted.get(name_in_version_1) or {}
    return known


def machine() -> dict[str, Any]:
    """The versions of the software, and the machine."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "machine": f"{platform.system()} {platform.machine()}"}


def _names(table: pl.DataFrame) -> Iterable[str]:
    return [name_of(row) for row in table.select(columns.COMPARISON).unique(maintain_order=True).iter_rows(named=True)]
