"""The listing of a zip, stored: to parse and sort a hundred thousand names takes longer than to compare what they hold.

Each zip has one, for each way to read it. It holds the state of the zip (its size and time) and of the toolkit's code;
when either changes, the zip is listed anew.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from toolkit.data.manifest import Dataset, Level, reasons
from toolkit.data.sources.assemble import Reading
from toolkit.data.sources.files import fingerprint, is_address
from toolkit.errors import CacheError
from toolkit.storage.damage import bytes_if_whole, record_if_whole
from toolkit.storage.records import write_record, write_whole
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
AGAIN = "the zip is listed again"
FIELDS = np.dtype([(name, "<i8") for name in Member._fields])
Find = Callable[[str], Member]


def place_in(folder: Path, zip_file: str, name: str, asked: Reading) -> Path:
    """Where the listing of a zip (path or address) is stored, whether or not it is there."""
    at = zip_file if is_address(zip_file) else str(Path(zip_file).absolute())
    facts = json.dumps([zip_file, at, name, asked.facts()])
    return folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.json"


def state_of(zip_file: str) -> str:
    """What a stored listing depends on. Raises DataError if the zip is gone."""
    return f"{fingerprint(zip_file)} {code_version()}"


def read(record: Path, state: str, reader: Callable[[Find], Callable[[str], bytes]]) -> Dataset | None:
    """The data set that `write` stored, with the `reader` of its members; None if it is not there, of another state, or
    damaged."""
    facts = record_if_whole(record, AGAIN)
    if facts is None or facts["state"] != state:
        return None
    parts = [bytes_if_whole(record.with_suffix(suffix), facts[suffix], AGAIN) for suffix in (ROWS, MEMBERS)]
    if parts[0] is None or parts[1] is None:
        return None
    rows, places = pl.read_parquet(io.BytesIO(parts[0])), np.load(io.BytesIO(parts[1]))
    return Dataset(
        *(facts["name"], facts["description"], rows, reader(_finder(rows["path"], places)), facts["kind"]),
        passed_over=reasons((path, reason) for path, reason in facts["passed_over"]),
        layout=tuple(Level(**level) for level in facts["layout"]),
        notes=tuple(facts["notes"]),
    )


def write(record: Path, state: str, dataset: Dataset, members: Mapping[str, Member]) -> None:
    """Store a data set and where its images lie. If the folder cannot be written, the next command lists anew."""
    rows, places = io.BytesIO(), io.BytesIO()
    dataset.rows.write_parquet(rows)
    np.save(places, np.array([members[path] for path in dataset.rows["path"]], dtype=FIELDS))
    facts = {name: getattr(dataset, name) for name in ("name", "description", "kind", "notes")}
    facts |= {"layout": [asdict(level) for level in dataset.layout], "passed_over": dataset.passed_over.rows()}
    with suppress(CacheError):
        for suffix, data in ((ROWS, rows.getvalue()), (MEMBERS, places.getvalue())):
            write_whole(record.with_suffix(suffix), data)
            facts[suffix] = hashlib.sha256(data).hexdigest()
        write_record(record, {**facts, "state": state})


def _finder(paths: pl.Series, places: np.ndarray) -> Find:
    """Finds a member by its path. The paths are indexed when the first is asked for."""

    @cache
    def numbers() -> dict[str, int]:
        return {path: number for number, path in enumerate(paths)}

    return lambda path: Member(*places[numbers()[path]].item())
