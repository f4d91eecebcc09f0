"""Tar shards as WebDataset writes them: images are read by their offset, and nothing is unpacked.

`samples` defines a sample. Shards without samples may hold folders, `split/label/category/…`, like a zip. Rows are in
natural order of the shards, and in each shard in the order of the samples.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from toolkit.data.images import SUFFIXES
from toolkit.data.manifest import Dataset, escape, natural, reasons
from toolkit.data.sources.assemble import Reading, assemble
from toolkit.data.sources.files import LARGEST_MEMBER, ReadAt, matching, pieces_of_many
from toolkit.data.sources.local import files_below
from toolkit.data.sources.samples import found_in_shards
from toolkit.data.sources.shard_index import index_of
from toolkit.errors import DataError, ImageError, counted
from toolkit.storage import distributed

MOST_SHARDS = 1_000_000
RANGE = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def shards_of(pattern: str) -> list[str]:
    """The shards that match a path or address with `{000..012}`, `{a,b}`, `*` or `?`, in natural order. Raises
    DataError if there are none, or too many.
    """
    places: list[str] = []
    for one in _braces(pattern):
        places += sorted(matching(one)) if re.search(r"[*?\[]", one) else [one]
        if len(places) > MOST_SHARDS:
            raise DataError(f"{pattern} matches more than {MOST_SHARDS:,} shards.")
    if not places:
        raise DataError(f"No shards match {pattern}.")
    return in_order(dict.fromkeys(places))


def in_order(places: Iterable[str]) -> list[str]:
    """Shards in natural order."""
    return sorted(places, key=lambda place: (natural(place), place))


def _braces(pattern: str) -> Iterator[str]:
    """`{00..12}` and `{a,b}` expanded, from the left; numbers keep their width."""
    found = RANGE.search(pattern)
    if not found:
        yield pattern
        return
    if found[1]:
        first, last, width = int(found[1]), int(found[2]), len(found[1])
        choices: Iterable[str] = (f"{number:0{width}d}" for number in range(first, last + 1))
    else:
        choices = found[3].split(",")
    for choice in choices:
        yield from _braces(pattern[: found.start()] + choice + pattern[found.end() :])


def open_shards(places: Sequence[str], name: str, where: str, kept: Path | None, asked: Reading) -> Dataset:
    """The data set in tar shards (paths or addresses); reads their headers. Raises DataError.

    Their contents are stored in the folder `kept`, so that an unchanged shard is walked through once. Processes under
    torchrun share that work.
    """
    if kept and distributed.world() > 1:
        for place in places[distributed.rank() :: distributed.world()]:
            index_of(place, kept)
        distributed.barrier()
    shards = [index_of(place, kept) for place in places]
    prefixes = _prefixes(places)
    read = _reader(
        {
            prefix + image: (number, offset, size)
            for number, (shard, prefix) in enumerate(zip(shards, prefixes, strict=True))
            for image, offset, size in shard.images
        },
        [pieces_of_many(place) for place in places],
    )
    found = found_in_shards(list(zip(places, prefixes, shards, strict=True)), asked)
    what = "images in a tar shard," if len(places) == 1 else f"images in {len(places):,} tar shards,"
    return assemble(found, name, f"{what} {where}", where, read, asked)


def with_what_lies_beside(dataset: Dataset, root: Path, shards: Sequence[str]) -> Dataset:
    """The data set in tar shards below `root`, with the other files there among those passed over."""
    passed_over: list[tuple[str, str]] = []
    used = {escape(Path(one).relative_to(root).as_posix()) for one in shards}
    beside = [name for name in files_below(root, passed_over) if name not in used]
    passed_over = [one for one in passed_over if one[0] not in used]  # a link to a shard elsewhere is read
    passed_over += [(name, "beside the tar shards") for name in beside]
    pictures = sum(name.lower().endswith(SUFFIXES) for name in beside)
    note = f"Not read: {counted(pictures, 'picture')} beside the tar shards. To read pictures, move the shards away."
    return replace(
        dataset,
        passed_over=pl.concat([dataset.passed_over, reasons(passed_over)]),
        notes=(*dataset.notes, *([note] if pictures else [])),
    )


def _prefixes(places: Sequence[str]) -> list[str]:
    """The prefixes of the members' names that distinguish the shards; empty if there is only one."""
    if len(places) == 1:
        return [""]
    parts = [place.split("/") for place in places]
    same = next((n for n, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1), 0)
    return [escape("/".join(part[same:])) + "/" for part in parts]


def _reader(members: dict[str, tuple[int, int, int]], shards: Sequence[ReadAt]) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        number, offset, size = members[path]
        if size > LARGEST_MEMBER:
            raise ImageError(f"larger than {LARGEST_MEMBER >> 20} MiB")
        try:
            data = shards[number](offset, size)
        except OSError as error:
            raise ImageError((error.strerror or str(error)).lower()) from error
        if len(data) != size:
            raise ImageError("truncated in its shard")
        return data

    return read
