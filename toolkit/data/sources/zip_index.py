"""The listing of a zip, stored: to parse and sort a hundred thousand names takes longer than to compare what they hold.

Each zip has one, for each way to read it. It holds the state of the zip (its size and time) and of the toolkit's code;
when either changes, the zip is listed anew.
"""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from toolkit.data.images import decoders
from toolkit.data.manifest import Dataset, Level, reasons
from toolkit.data.sources.assemble import Reading
from toolkit.data.sources.files import fingerprint, in_full
from toolkit.storage import kept
from toolkit.version import code_version


class Member(NamedTuple):
    """Where a file lies in a zip: the offset of its header, the most bytes that its name and extra fields take behind
    that, its packed and unpacked bytes, CRC-32 and method of compression."""

    offset: int
    names: int
    packed: int
    size: int
    crc: int
    method: int
    encrypted: int


ROWS, MEMBERS = ".parquet", ".npy"
ABSENT = Member(-1, 0, 0, 0, 0, 0, 0)
"""Stands for a file that a table in the zip names and that is not there."""
TYPES = ("<i8", "<u4", "<u8", "<u8", "<u4", "<u2", "u1")
FIELDS = np.dtype(list(zip(Member._fields, TYPES, strict=True)))
Find = Callable[[str], Member | None]


def place_in(folder: Path, zip_file: str, name: str, asked: Reading) -> Path:
    """Where the listing of a zip (path or address) is stored, whether or not it is there."""
    facts = json.dumps([zip_file, in_full(zip_file), name, asked.facts()])
    return folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.json"


def state_of(zip_file: str) -> str | None:
    """What a stored listing depends on: the zip, the code, and the libraries that decode here. None where a server
    does not tell whether the zip changed. Raises DataError if the zip is gone."""
    mark = fingerprint(zip_file)
    return mark and f"{mark} {code_version()} {decoders()}"


def read(record: Path, state: str, reader: Callable[[Find], Callable[[str], bytes]]) -> Dataset | None:
    """The data set that `write` stored, with the `reader` of its members; None if it is not there, of another state, or
    damaged."""
    found = kept.read(record, state, "the zip is listed again")
    if found is None:
        return None
    facts, files = found
    rows, places = pl.read_parquet(io.BytesIO(files[ROWS])), np.load(io.BytesIO(files[MEMBERS]))
    return Dataset(
        *(facts["name"], facts["description"], rows, reader(_finder(rows["path"], places)), facts["kind"]),
        passed_over=reasons((path, reason) for path, reason in facts["passed_over"]),
        layout=tuple(Level(**level) for level in facts["layout"]),
        notes=tuple(facts["notes"]),
    )


def write(record: Path, state: str, dataset: Dataset, members: Mapping[str, Member]) -> None:
    """Store a data set and where its images lie."""
    rows, places = io.BytesIO(), io.BytesIO()
    dataset.rows.write_parquet(rows)
    np.save(places, np.array([members.get(path, ABSENT) for path in dataset.rows["path"]], dtype=FIELDS))
    facts = {name: getattr(dataset, name) for name in ("name", "description", "kind", "notes")}
    facts |= {"layout": [asdict(level) for level in dataset.layout], "passed_over": dataset.passed_over.rows()}
    kept.write(record, state, facts, {ROWS: rows.getvalue(), MEMBERS: places.getvalue()})


def _finder(paths: pl.Series, places: np.ndarray) -> Find:
    """Finds a member by its path. The paths are indexed when the first is asked for, by one thread."""
    turn = threading.Lock()

    @cache
    def indexed() -> dict[str, int]:
        return {path: number for number, path in enumerate(paths)}

    def numbers() -> dict[str, int]:
        with turn:
            return indexed()

    def find(path: str) -> Member | None:
        number = numbers().get(path)
        member = ABSENT if number is None else Member(*places[number].item())
        return None if member == ABSENT else member

    return find
