"""Hugging Face's image data sets: Parquet files, a folder of `save_to_disk`, or `hf:owner/name` on the hub.

Images are a column of structs with `bytes` and `path`; labels are numbers, whose names are in the file's metadata.
Polars reads both formats. Only the hub's client is needed, which open_clip installs. Files are read in parts.

Why not the library `datasets`: it brings 376 MB (pyarrow 170, pandas 84; `pip install --target t datasets`, November
2026) for files that Polars reads as well. What must be guessed is the same as for any table: the meaning of columns,
and the split in a file's name.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from toolkit.data.manifest import SCHEMA, Dataset, escape
from toolkit.data.sources.assemble import Found, Reading, assemble
from toolkit.data.sources.columns import as_text, columns_of
from toolkit.data.sources.vocabulary import COLUMNS, plain_column, split_in_path
from toolkit.errors import DataError, ImageError, first_line

HUB = "hf:"
PART = 64 << 20
"""The approximate size of a part of a Parquet file. Up to `PARTS` parts are held in memory; files of `save_to_disk` are
one part each."""
PARTS = 3


def open_hub(address: str, asked: Reading) -> Dataset:
    """The data set `hf:owner/name`: its Parquet files, downloaded to the hub's own cache. Raises DataError.

    If it has none, the hub's own conversion to Parquet is used.
    """
    from toolkit.storage.network import fail_fast_without_network

    owner_and_name = address.removeprefix(HUB).strip("/")
    fail_fast_without_network()
    folder = _snapshot(owner_and_name, None) or _snapshot(owner_and_name, CONVERTED)
    if folder is None:
        raise DataError(
            f"{owner_and_name} cannot be had from here as Parquet files with images (no network, or no such data set): "
            "run it again, which fetches only what is missing, or download its Parquet files where there is a network "
            "and give their folder, --data FOLDER."
        )
    return open_folder(folder, owner_and_name, asked)


CONVERTED = "refs/convert/parquet"
"""The branch into which the hub converts every data set."""


def _snapshot(owner_and_name: str, revision: str | None) -> Path | None:
    """The folder with the Parquet files of a revision; None if there are none or they cannot be downloaded."""
    from huggingface_hub import snapshot_download

    from toolkit.storage.network import quiet_client

    wanted: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "allow_patterns": ["*.parquet"]}
    try:
        with quiet_client():
            folder = Path(snapshot_download(owner_and_name, **wanted))
    except Exception:  # the client and the libraries below it raise many types; all mean that there is nothing to read
        return None
    return folder if next(folder.rglob("*.parquet"), None) else None


def is_folder_of_images(folder: Path) -> bool:
    """Whether a folder is one of `save_to_disk`, or holds Parquet files with images."""
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return True
    first = next(iter(sorted(folder.rglob("*.parquet"))), None)
    return first is not None and is_parquet_of_images(first)


def is_parquet_of_images(path: Path) -> bool:
    """Whether a Parquet file has a column of structs with the bytes of images."""
    try:
        return _image_column(_schema(path)) is not None
    except DataError:
        return False


def open_folder(folder: Path, name: str, asked: Reading) -> Dataset:
    """The images in all Parquet (else Arrow) files below a folder, in the order of their names. Raises DataError."""
    files = sorted(folder.rglob("*.parquet")) or sorted(folder.rglob("data-*.arrow"))
    files = [path for path in files if path.suffix == ".arrow" or is_parquet_of_images(path)]
    if not files:
        raise DataError(f"{folder} holds no Parquet or Arrow files with images.")
    return open_files(files, folder, name, asked)


def open_files(paths: Sequence[Path], root: Path, name: str, asked: Reading) -> Dataset:
    """The images in these files. Splits may be named in their paths below `root`. Raises DataError."""
    files = {path.relative_to(root).as_posix(): _File(path, asked.columns) for path in paths}
    parts = [_rows(file, below, asked) for below, file in files.items()]
    rows = pl.concat([rows for rows, _ in parts], how="diagonal")
    said = {meaning: column for _, columns in parts for meaning, column in columns.items()}
    further = {one: one for one in rows.columns if one not in (*SCHEMA, "original")}
    levels = [(f"column {column}", meaning) for meaning, column in {**said, **further}.items()]
    if "split" not in said and rows["split"].count():
        levels.append(("file name", "split"))
    found = Found(rows, [], levels, kind="huggingface")
    what = "images in one file," if len(files) == 1 else f"images in {len(files)} files,"
    where = str(paths[0] if len(files) == 1 else root)
    return assemble(found, name, f"{what} {where}", where, _reader(files), asked)


def _rows(file: "_File", below: str, asked: Reading) -> tuple[pl.DataFrame, dict[str, str]]:
    """One file's rows, with each image's original file name (`original`) and the split in the path; and meaning ->
    column."""
    table = file.without_bytes()
    text = as_text(table.drop("original")).with_columns(
        _named(table[column], names) for column, names in file.class_names().items() if column in table.columns
    )
    said = {meaning: column for meaning, column in asked.columns.items() if column != file.image}
    if "label" not in said and not _has_label(text) and file.class_names():
        said["label"] = next(iter(file.class_names()))
    columns = columns_of(text, said, str(file.path), ("label",))
    columns.pop("path", None)
    split = pl.lit(split_in_path(below.replace("partial-", "")), dtype=pl.String)
    none = pl.lit(None, dtype=pl.String)
    taken = (*columns.values(), *SCHEMA, "original")
    rows = text.select(
        *[pl.col(one) for one in text.columns if one not in taken],
        path=pl.lit(escape(below)) + "/" + pl.int_range(pl.len()).cast(pl.String),
        label=pl.col(columns["label"]),
        category=pl.col(columns["category"]) if "category" in columns else none,
        split=pl.col(columns["split"]).fill_null(split) if "split" in columns else split,
        original=table["original"],
    )
    return rows, columns


def _has_label(text: pl.DataFrame) -> bool:
    return any(plain_column(name) in COLUMNS["label"] for name in text.columns)


def _named(numbers: pl.Series, names: Sequence[str]) -> pl.Series:
    """The names of a class label's numbers (-1: null); other columns as text."""
    if not numbers.dtype.is_integer():
        return numbers.cast(pl.String)
    known = {number: str(name) for number, name in enumerate(names)}
    return numbers.cast(pl.Int64).replace_strict(known, default=None, return_dtype=pl.String)


@dataclass
class _File:
    """A Parquet file, or an Arrow file of `save_to_disk`: its columns, and reading of its parts."""

    path: Path
    said: Mapping[str, str]
    schema: pl.Schema = field(init=False)
    image: str = field(init=False)
    features: dict[str, Any] = field(init=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.schema = _schema(self.path)
        self.features = _features(self.path)
        image = self.said.get("path") if self.said.get("path") in self.schema else _image_column(self.schema)
        if image is None:
            raise DataError(f"{self.path} has no column with the bytes of images: it has {', '.join(self.schema)}.")
        self.image = image
        self.length = int(self._read([pl.len()])[0, 0])

    def class_names(self) -> dict[str, list[str]]:
        """The columns that are class labels, with the names that their numbers stand for."""
        found = {name: facts.get("names") or [] for name, facts in self.features.items() if name in self.schema}
        return {name: names for name, names in found.items() if names}

    def without_bytes(self) -> pl.DataFrame:
        """All columns except the images, and `original`: each image's original file name, if known."""
        original = self._field("path") if self._has("path") else pl.lit(None, dtype=pl.String)
        others = [pl.col(name) for name in self.schema if name not in (self.image, "original")]
        return self._read([*others, original.alias("original")])

    def _has(self, name: str) -> bool:
        kind = self.schema[self.image]
        return isinstance(kind, pl.Struct) and name in {one.name for one in kind.fields}

    def _field(self, name: str) -> pl.Expr:
        return pl.col(self.image).struct.field(name)

    @property
    def rows_a_part(self) -> int:
        """How many rows are read at once."""
        if self.path.suffix == ".arrow":
            return max(self.length, 1)
        return max(1, self.length * PART // max(self.path.stat().st_size, 1))

    def part(self, number: int) -> pl.Series:
        """The bytes of the images of one part, Binary."""
        content = self._field("bytes") if self._has("bytes") else pl.col(self.image)
        return self._read([content], number * self.rows_a_part, self.rows_a_part)[:, 0]

    def _read(self, columns: Sequence[pl.Expr], start: int = 0, count: int | None = None) -> pl.DataFrame:
        try:
            if self.path.suffix == ".arrow":
                return pl.read_ipc_stream(self.path).lazy().slice(start, count).select(columns).collect()
            return pl.scan_parquet(self.path).slice(start, count).select(columns).collect()
        except (Exception, pl.exceptions.PanicException) as error:  # a damaged file makes Polars raise or panic
            raise _unreadable(self.path, error) from error


def _reader(files: dict[str, _File]) -> Callable[[str], bytes]:
    """Reads an image by `<file>/<row>`; the parts read last stay in memory."""
    by_name = {escape(below): file for below, file in files.items()}
    held: OrderedDict[tuple[str, int], pl.Series] = OrderedDict()
    lock = threading.Lock()

    def read(path: str) -> bytes:
        name, _, row = path.rpartition("/")
        part, place = divmod(int(row), by_name[name].rows_a_part)
        with lock:
            if (name, part) not in held:
                try:
                    held[name, part] = by_name[name].part(part)
                except DataError as error:
                    raise ImageError("its file is gone or damaged") from error
            held.move_to_end((name, part))
            while len(held) > PARTS:
                held.popitem(last=False)
            data = held[name, part][place]
        if data is None:
            raise ImageError("its bytes are not in the file")
        return bytes(data)

    return read


def _schema(path: Path) -> pl.Schema:
    try:
        if path.suffix == ".arrow":
            return pl.read_ipc_stream(path, n_rows=0).schema
        return pl.Schema(pl.read_parquet_schema(path))
    except (Exception, pl.exceptions.PanicException) as error:  # a damaged file makes Polars raise or panic
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} cannot be read ({first_line(error)}): download or save it again.")


def _features(path: Path) -> dict[str, Any]:
    """The data set's own metadata on its columns, from a Parquet file's footer or a file beside an Arrow file."""
    try:
        if path.suffix == ".arrow":
            found = json.loads((path.parent / "dataset_info.json").read_text())["features"]
        else:
            found = json.loads(pl.read_parquet_metadata(path)["huggingface"])["info"]["features"]
        return {str(name): dict(facts) for name, facts in found.items() if isinstance(facts, dict)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _image_column(schema: pl.Schema) -> str | None:
    """The first struct with bytes, else the first column of bytes."""
    for name, kind in schema.items():
        if isinstance(kind, pl.Struct) and "bytes" in {one.name for one in kind.fields}:
            return name
    return next((name for name, kind in schema.items() if kind == pl.Binary), None)
