"""Sources of images. `open_data` recognises the kind of data; each kind of source has a module of its own."""

import os
import re
from dataclasses import replace
from glob import escape
from pathlib import Path, PurePosixPath

from toolkit.data.equalise import equalised, parse_steps
from toolkit.data.manifest import Dataset
from toolkit.data.sources import files
from toolkit.data.sources.assemble import AS_IT_LOOKS
from toolkit.data.sources.assemble import Reading as Reading
from toolkit.data.sources.listing import TABLES
from toolkit.errors import DataError
from toolkit.storage.kept import LISTINGS

STANDARD_PLACES = (Path("data/cifake"), Path("data/cifake.zip"))
SHARDS = (".tar", ".gz", ".tgz")
PATTERN = r"[*?{[].*\.tar$"
"""A path that matches stands for several shards."""


def open_data(path: str | Path | None = None, cache: Path | None = None, asked: Reading = AS_IT_LOOKS) -> Dataset:
    """The data set at `path`; without one, CIFAKE from `data/cifake` or `data/cifake.zip`, else the built-in sample.

    Reads file names, and the first bytes of files without an image suffix. `asked` is what the user states about
    folders, columns and splits; only its `test_share` reads every image. With `equalise` every picture is read
    equalised, and the data's name says so. `cache` keeps the contents of zips and tar shards, and the sample.
    Raises DataError if there is no data, or none of a known kind.
    """
    kept = cache and cache / LISTINGS
    if asked.equalise is None:
        return _as_it_is(path, kept, asked)
    equaliser = parse_steps(asked.equalise)
    return equalised(_as_it_is(path, kept, replace(asked, equalise=None)), equaliser)


def _as_it_is(path: str | Path | None, kept: Path | None, asked: Reading) -> Dataset:
    path = _standard(path)
    if path == "sample":
        from toolkit.data.sources.sample import sample

        return sample(kept)
    place = str(path).removeprefix("file://")
    if _is_on_hub(place):
        from toolkit.data.sources.huggingface import open_hub

        return open_hub(place, asked)
    if re.search(PATTERN, place) and not os.path.exists(place):
        from toolkit.data.sources.shards import open_shards, shards_of

        return open_shards(shards_of(place), PurePosixPath(place).parent.name or "shards", place, kept, asked)
    if not (files.is_there(place) if files.is_address(place) else Path(place).exists()):
        raise DataError(
            f"No data at {place}: data are CIFAKE as a folder or zip, folders split/label/category/, tar shards, or a "
            f"CSV or Parquet of paths. Without --data the built-in sample is used."
        )
    return _open(place, PurePosixPath(place).stem, kept, asked)


def open_other(path: str, without_split: str, asked: Reading = AS_IT_LOOKS, cache: Path | None = None) -> Dataset:
    """Another data set beside the user's own, to score or to calibrate on. Raises DataError.

    It is read like the user's own data (`asked`) if that fits, else as its names say. If it names no split, all of it
    belongs to `without_split`.
    """
    asked = replace(asked, test_share=None, without_split=without_split)
    try:
        return open_data(path, cache=cache, asked=asked)
    except DataError:
        if not asked.layout and not asked.columns:
            raise
        return open_data(path, cache=cache, asked=Reading(without_split=without_split, equalise=asked.equalise))


def place_of(path: str | Path | None = None) -> str:
    """The place that `open_data` opens for `path`, as an absolute path or address."""
    place = _standard(path)
    return place if place == "sample" or _is_on_hub(place) else files.in_full(place.removeprefix("file://"))


def _is_on_hub(place: str) -> bool:
    return place.startswith("hf:") and not place.startswith("hf://")


def _standard(path: str | Path | None) -> str:
    if path is None:
        path = next((place for place in STANDARD_PLACES if place.exists()), "sample")
    return str(path)


def _open(place: str, name: str, kept: Path | None, asked: Reading) -> Dataset:
    suffix = PurePosixPath(place).suffix.lower()
    if files.is_folder(place) if files.is_address(place) else Path(place).is_dir():
        return _open_folder(place, name, kept, asked)
    if suffix == ".zip":
        from toolkit.data.sources.archive import open_zip

        return open_zip(place, name, kept, asked)
    if suffix == ".parquet" and not files.is_address(place):
        from toolkit.data.sources.huggingface import is_parquet_of_images, open_files

        if is_parquet_of_images(Path(place)):
            return open_files([Path(place)], Path(place).parent, name, asked)
    if suffix in TABLES:
        from toolkit.data.sources.table import open_table

        return open_table(place, name, asked)
    if suffix in SHARDS:
        from toolkit.data.sources.shards import open_shards

        return open_shards([place], name, place, kept, asked)
    raise DataError(
        f"{place} is neither a folder, nor a .zip, a .tar, nor a table of paths (.csv, .tsv, .jsonl, .parquet)."
    )


def _open_folder(place: str, name: str, kept: Path | None, asked: Reading) -> Dataset:
    """Tar shards in the folder, or in its split folders, take precedence over images."""
    from toolkit.data.sources.folder import open_folder, open_folder_at
    from toolkit.data.sources.shards import in_order, open_shards, with_what_lies_beside

    root = escape(place.rstrip("/"))
    shards = [one for pattern in ("*.tar", "*/*.tar") for one in files.matching(f"{root}/{pattern}")]
    if shards:
        dataset = open_shards(in_order(shards), name, place, kept, asked)
        return dataset if files.is_address(place) else with_what_lies_beside(dataset, Path(place), shards)
    if files.is_address(place):
        return open_folder_at(place, name, asked)
    from toolkit.data.sources import huggingface

    if huggingface.is_folder_of_images(Path(place)):
        return huggingface.open_folder(Path(place), name, asked)
    return open_folder(Path(place), name, asked)
