"""Tar shards as WebDataset has them: images are read by their place in the shard, and nothing is unpacked.

Files with the same name up to the first dot of its last part are one sample: `000123.jpg` with `000123.json` (an object
with label, and maybe category and split), or with `000123.cls` or `000123.txt` (the label alone). A split that no JSON
names is what the shard's own name says: `train-000000.tar`, `test/000000.tar`. Shards without such files may hold
folders instead, `split/label/category/…`, as a zip does. Where samples and shards come in order, so do their rows:
shards by the numbers in their names, samples as they lie in the shard.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from toolkit.data.manifest import SPLITS, Dataset, escape, frame, natural
from toolkit.data.sources.files import ReadAt, matching, pieces_of_many
from toolkit.data.sources.layout import Row, rows_from_names
from toolkit.data.sources.shard_index import Shard, index_of
from toolkit.errors import DataError, ImageError
from toolkit.storage import distributed

LARGEST_MEMBER = 256 << 20
MOST_SHARDS = 1_000_000
RANGE = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def shards_of(pattern: str) -> list[str]:
    """The shards that a path or address with `{000..012}`, `{a,b}`, `*` or `?` stands for, in natural order.

    Raises DataError where it stands for none, or for too many.
    """
    places: list[str] = []
    for one in _braces(pattern):
        places += sorted(matching(one)) if re.search(r"[*?\[]", one) else [one]
        if len(places) > MOST_SHARDS:
            raise DataError(f"{pattern} stands for more than {MOST_SHARDS:,} shards.")
    if not places:
        raise DataError(f"No shards match {pattern}.")
    return in_order(dict.fromkeys(places))


def in_order(places: Iterable[str]) -> list[str]:
    """Shards by the numbers in their names."""
    return sorted(places, key=lambda place: (tuple(natural(place)), place))


def _braces(pattern: str) -> Iterator[str]:
    """`{00..12}` and `{a,b}` written out, from the left; numbers keep their width."""
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


def open_shards(places: Sequence[str], name: str, where: str, kept: Path | None = None) -> Dataset:
    """The data set in tar shards (paths or addresses), after one look at their headers. Raises DataError.

    What the headers say is remembered in the folder `kept`, so that an unchanged shard is walked through once; several
    processes under torchrun share that walk.
    """
    if kept and distributed.world() > 1:
        for place in places[distributed.rank() :: distributed.world()]:
            index_of(place, kept)
        distributed.barrier()
    shards = [index_of(place, kept) for place in places]
    prefixes = _prefixes(places)
    members = {
        prefix + image: (number, offset, size)
        for number, (shard, prefix) in enumerate(zip(shards, prefixes, strict=True))
        for image, offset, size in shard.images
    }
    if any(shard.described() for shard in shards):
        all_three = zip(places, prefixes, shards, strict=True)
        kind, rows = "shards", frame([row for place, prefix, one in all_three for row in _rows(one, prefix, place)])
    else:
        kind, rows = rows_from_names(members, where)
    read = _reader(members, [pieces_of_many(place) for place in places])
    what = "a tar shard" if len(places) == 1 else f"{len(places):,} tar shards"
    return Dataset(name, f"images in {what}, {where}, read in place: {len(rows):,} images", rows, read, kind)


def _prefixes(places: Sequence[str]) -> list[str]:
    """What tells the shards apart, in front of their members' names; nothing where there is only one."""
    if len(places) == 1:
        return [""]
    parts = [place.split("/") for place in places]
    same = next((n for n, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1), 0)
    return [escape("/".join(part[same:])) + "/" for part in parts]


def _split_in(place: str) -> str:
    """`train` or `test`, if a shard's name says so, or the name of the folder that it lies in; else nothing."""
    folder, name = ["", *place.lower().split("/")][-2:]
    words = [word for word in re.split(r"[._-]", name) if word in SPLITS]
    return words[0] if words else folder if folder in SPLITS else ""


def _rows(shard: Shard, prefix: str, place: str) -> Iterator[Row]:
    """A row for each image of a shard. Raises DataError where a sample has no label or no split."""
    of_the_shard = _split_in(place)
    for image, _, _ in shard.images:
        facts = shard.facts_of(image)
        split = facts.get("split", of_the_shard).lower()
        if "label" not in facts or split not in SPLITS:
            lacks = "no label" if "label" not in facts else "no split"
            raise DataError(
                f"{place}: the image {image} has {lacks}. A sample needs a .json with label and split (train, test), "
                f"or a .cls or .txt with its label and a shard whose name says train or test."
            )
        yield prefix + image, facts["label"], facts.get("category"), split


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
            raise ImageError("cut off in its shard")
        return data

    return read
