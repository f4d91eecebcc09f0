"""Hugging Face's image data sets: Parquet files, a folder of `save_to_disk`, or `hf:owner/name` on the hub.

Their images are a column of structs with `bytes` and `path`, their labels numbers whose names the file's metadata
tells. Polars reads both formats; no library of Hugging Face's is needed but the hub's client, which open_clip brings.
Images stay in their files, which are read a part at a time.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from toolkit.data.manifest import SCHEMA, Dataset, escape
from toolkit.data.sources.layout import CATEGORIES, parse_cifake_name
from toolkit.errors import DataError, ImageError

HUB = "hf:"
PART = 64 << 20
"""About so many bytes of a Parquet file are held at once, in `PARTS` parts; of `save_to_disk`'s files, whole files."""
PARTS = 3
SPLIT = re.compile(r"(?<![a-z])(train|test|validation|valid|val|dev)(?![a-z])")
TESTS_INSTEAD = {"validation", "valid", "val", "dev"}
"""What counts as the test split where there is none of that name."""


def open_hub(address: str, name: str | None = None) -> Dataset:
    """`hf:owner/name`: its Parquet files, downloaded into the hub's own cache. Raises DataError.

    Where the data set is of other files, the hub's own conversion to Parquet is taken.
    """
    from toolkit.storage.network import fail_fast_without_network

    owner_and_name = address.removeprefix(HUB).strip("/")
    fail_fast_without_network()
    folder = _snapshot(owner_and_name, None) or _snapshot(owner_and_name, CONVERTED)
    if folder is None:
        raise DataError(
            f"{owner_and_name} cannot be had from here as Parquet files with images (no network, or no such data set): "
            f"download its Parquet files where there is a network and give their folder, --data FOLDER."
        )
    return open_folder(folder, name or owner_and_name)


CONVERTED = "refs/convert/parquet"
"""The branch into which the hub converts every data set."""


def _snapshot(owner_and_name: str, revision: str | None) -> Path | None:
    """The folder with the Parquet files of one revision, if there are any and they can be had."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(owner_and_name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"])
        )
    except Exception:  # whatever the client and its many layers raise: what matters is that there is nothing to read
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


def open_folder(folder: Path, name: str) -> Dataset:
    """The images in all Parquet (else Arrow) files below a folder, in the order of their names. Raises DataError."""
    files = sorted(folder.rglob("*.parquet")) or sorted(folder.rglob("data-*.arrow"))
    files = [path for path in files if path.suffix == ".arrow" or is_parquet_of_images(path)]
    if not files:
        raise DataError(f"{folder} holds no Parquet or Arrow files with images.")
    return open_files(files, folder, name)


def open_files(paths: Sequence[Path], root: Path, name: str) -> Dataset:
    """The images in these files; what their paths below `root` say of splits counts. Raises DataError."""
    files = {path.relative_to(root).as_posix(): _File(path) for path in paths}
    rows = pl.concat([_rows(file, below) for below, file in files.items()])
    rows = _with_splits(_with_cifakes_categories(rows))
    if rows.is_empty():
        raise DataError(f"{root} holds no labelled images.")
    what = f"{len(rows):,} images in {len(files)} files of a Hugging Face data set in {root}, read in place"
    return Dataset(name, what, rows.select(list(SCHEMA)), _reader(files), "huggingface")


def _rows(file: "_File", below: str) -> pl.DataFrame:
    """One file's rows, with the name that each image had as a file (`original`), and the split that the path says."""
    labels = _named(file, file.label)
    category = next((name for name in ("category", "class") if name in file.schema and name != file.label), None)
    found = SPLIT.findall(below.lower())
    numbers = pl.int_range(pl.len()).cast(pl.String)
    table = file.without_bytes([file.label, *([category] if category else [])])
    return table.select(
        label=labels(table),
        category=_named(file, category)(table) if category else pl.lit(None, dtype=pl.String),
        split=pl.lit(found[-1] if found else "train"),
        original=pl.col("original"),
        path=pl.lit(escape(below)) + "/" + numbers,
    ).drop_nulls("label")


def _named(file: "_File", column: str) -> Callable[[pl.DataFrame], pl.Series]:
    """A column as text: a class label's numbers by their names (-1 is none), anything else as it is."""
    names = file.features.get(column, {}).get("names") or []

    def named(table: pl.DataFrame) -> pl.Series:
        values = table[column]
        if not names or not values.dtype.is_integer():
            return values.cast(pl.String)
        known = {number: str(name) for number, name in enumerate(names)}
        return values.cast(pl.Int64).replace_strict(known, default=None, return_dtype=pl.String)

    return named


def _with_splits(rows: pl.DataFrame) -> pl.DataFrame:
    """Train and test; where there is no test, validation is it. Other splits are left out."""
    instead = pl.col("split").is_in(list(TESTS_INSTEAD))
    if not (rows["split"] == "test").any():
        rows = rows.with_columns(split=pl.when(instead).then(pl.lit("test")).otherwise("split"))
    return rows.filter(pl.col("split").is_in(["train", "test"]))


def _with_cifakes_categories(rows: pl.DataFrame) -> pl.DataFrame:
    """CIFAKE loses its folders on the hub. Where its files keep their names, these still tell category and order."""
    if rows["category"].drop_nulls().len() or set(rows["label"].unique()) != {"REAL", "FAKE"}:
        return rows
    numbers = [parse_cifake_name(PurePosixPath(name or "").name) for name in rows["original"]]
    known = [number for number in numbers if number]
    if len(known) < len(rows) or all(suffix == 1 for _, suffix in known):
        return rows
    found = pl.DataFrame(known, schema={"number": pl.Int64, "suffix": pl.Int64}, orient="row")
    categories = found["suffix"].replace_strict(CATEGORIES, return_dtype=pl.String)
    named = rows.with_columns(categories.alias("category"), *found.get_columns())
    return named.sort("number", "suffix", maintain_order=True).drop("number", "suffix")


@dataclass
class _File:
    """A Parquet file, or one of `save_to_disk`'s Arrow files: which columns hold what, and parts of it in memory."""

    path: Path
    schema: pl.Schema = field(init=False)
    image: str = field(init=False)
    label: str = field(init=False)
    features: dict[str, Any] = field(init=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.schema = _schema(self.path)
        self.features = _features(self.path)
        image, label = _image_column(self.schema), _label_column(self.schema, self.features)
        if image is None or label is None:
            missing = "images (a struct of bytes and path)" if image is None else "labels (label)"
            raise DataError(f"{self.path} has no column with {missing}: it has {', '.join(self.schema)}.")
        self.image, self.label = image, label
        self.length = int(self._read([pl.len()])[0, 0])

    def without_bytes(self, columns: list[str]) -> pl.DataFrame:
        """These columns, and `original`: the name that each image had as a file."""
        return self._read([*columns, pl.col(self.image).struct.field("path").alias("original")])

    @property
    def rows_a_part(self) -> int:
        """How many rows are read at once."""
        if self.path.suffix == ".arrow":
            return max(self.length, 1)
        return max(1, self.length * PART // max(self.path.stat().st_size, 1))

    def part(self, number: int) -> pl.Series:
        """The bytes of the images of one part, Binary."""
        field = pl.col(self.image).struct.field("bytes")
        return self._read([field], number * self.rows_a_part, self.rows_a_part)[:, 0]

    def _read(self, columns: Sequence[str | pl.Expr], start: int = 0, count: int | None = None) -> pl.DataFrame:
        try:
            if self.path.suffix == ".arrow":
                return pl.read_ipc_stream(self.path).lazy().slice(start, count).select(columns).collect()
            return pl.scan_parquet(self.path).slice(start, count).select(columns).collect()
        except BaseException as error:  # a damaged file makes Polars raise, or panic, which is no Exception
            raise _unreadable(self.path, error) from error


def _reader(files: dict[str, _File]) -> Callable[[str], bytes]:
    """Reads an image by `<file>/<row>`; the last few parts that were read stay in memory."""
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
    except BaseException as error:  # a damaged file makes Polars raise, or panic, which is no Exception
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> Exception:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return DataError(f"{path} cannot be read ({reason}): download or save it again.")


def _features(path: Path) -> dict[str, Any]:
    """What the data set's own metadata says of its columns: in a Parquet file's footer, or beside an Arrow file."""
    try:
        if path.suffix == ".arrow":
            found = json.loads((path.parent / "dataset_info.json").read_text())["features"]
        else:
            found = json.loads(pl.read_parquet_metadata(path)["huggingface"])["info"]["features"]
        return {str(name): dict(facts) for name, facts in found.items() if isinstance(facts, dict)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _image_column(schema: pl.Schema) -> str | None:
    for name, kind in schema.items():
        if isinstance(kind, pl.Struct) and {"bytes", "path"} <= {one.name for one in kind.fields}:
            return name
    return None


def _label_column(schema: pl.Schema, features: dict[str, Any]) -> str | None:
    """`label`, `labels`, or else the first class label."""
    classes = [name for name, facts in features.items() if facts.get("_type") == "ClassLabel"]
    return next((name for name in ("label", "labels", *classes) if name in schema), None)
