"""Tar shards as WebDataset has them: images are read by their place in the shard, and nothing is unpacked.

Files with the same name up to the first dot of its last part are one sample: `000123.jpg` with `000123.json` (an object
with label, and maybe category and split), or with `000123.cls` or `000123.txt` (the label alone). A split that no JSON
names is what the shard's own name says: `train-000000.tar`, `test/000000.tar`. Shards without such files may hold
folders instead, `split/label/category/…`, as a zip does. Where samples and shards come in order, so do their rows:
shards by the numbers in their names, samples as they lie in the shard.
"""

import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from toolkit.errors import DataError, ImageError
from toolkit.images import SUFFIXES
from toolkit.manifest import SPLITS, Dataset, escape, frame, natural
from toolkit.sources.files import ReadAt, matching, open_binary, pieces_of_many
from toolkit.sources.layout import Row, rows_from_names

BLOCK = 512
LARGEST_MEMBER = 256 << 20
LARGEST_FACTS = 1 << 16
MOST_SHARDS = 1_000_000
FACTS = (".json", ".cls", ".txt")
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
    return in_order(places)


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


@dataclass
class _Index:
    """What the headers say: images as path -> (shard, offset, size), the sample of each, and what is known of those."""

    members: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)


def open_shards(places: Sequence[str], name: str, where: str) -> Dataset:
    """The data set in tar shards (paths or addresses), after one look at their headers. Raises DataError."""
    index = _Index()
    for number, (place, prefix) in enumerate(zip(places, _prefixes(places), strict=True)):
        _look_at(place, number, prefix, index)
    if any(sample in index.facts for sample in index.samples.values()):
        kind, rows = "shards", frame(list(_rows(index, where)))
    else:
        kind, rows = rows_from_names(index.members, where)
    read = _reader(index.members, [pieces_of_many(place) for place in places])
    shards = "a tar shard" if len(places) == 1 else f"{len(places):,} tar shards"
    return Dataset(name, f"images in {shards}, {where}, read in place: {len(rows):,} images", rows, read, kind)


def _prefixes(places: Sequence[str]) -> list[str]:
    """What tells the shards apart, in front of their members' names; nothing where there is only one."""
    if len(places) == 1:
        return [""]
    parts = [place.split("/") for place in places]
    same = next((n for n, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1), 0)
    return [escape("/".join(part[same:])) + "/" for part in parts]


def _look_at(place: str, number: int, prefix: str, index: _Index) -> None:
    split = _split_in(place)
    try:
        with open_binary(place) as file, tarfile.open(fileobj=file, mode="r:") as shard:
            for member in shard:
                if _harmless(member):
                    _note(shard, member, number, prefix, split, index)
                shard.members.clear()  # type: ignore[attr-defined]  # tarfile keeps each member it has met
            file.seek(shard.offset)
            if file.read(BLOCK) != bytes(BLOCK):  # tarfile takes whatever is no header for the end
                raise DataError(f"{place} is damaged or cut off behind byte {shard.offset:,}: fetch it again.")
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        hint = "; compressed shards cannot be read in place: unpack the .gz" if place.endswith((".gz", ".tgz")) else ""
        raise DataError(f"{place} cannot be read as a tar shard: {str(error)[:120]}{hint}.") from error


def _harmless(member: tarfile.TarInfo) -> bool:
    """Plain files alone, no links or devices; none that leads out of the shard."""
    parts = member.name.replace("\\", "/").split("/")
    return (
        member.isreg()
        and not member.issparse()
        and bool(member.name.strip("/"))
        and parts[0] != ""
        and ".." not in parts
    )


def _note(shard: tarfile.TarFile, member: tarfile.TarInfo, number: int, prefix: str, split: str, index: _Index) -> None:
    folder, _, last = member.name.rpartition("/")
    sample = f"{prefix}{escape(folder)}/{escape(last.split('.', 1)[0])}"
    suffix = PurePosixPath(last).suffix.lower()
    if suffix in SUFFIXES:
        path = prefix + escape(member.name)
        index.members[path] = (number, member.offset_data, member.size)
        index.samples[path] = sample
    elif suffix in FACTS and member.size <= LARGEST_FACTS:
        file = shard.extractfile(member)
        facts = _facts(suffix, file.read() if file else b"")
        index.facts[sample] = {"split": split, **index.facts.get(sample, {}), **facts}


def _facts(suffix: str, content: bytes) -> dict[str, str]:
    """label, category and split, as far as a sample's file names them."""
    text = content.decode(errors="replace").strip()
    if suffix != ".json":
        return {"label": text} if text and len(text.splitlines()) == 1 else {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    named = found if isinstance(found, dict) else {}
    plain = {name: named.get(name) for name in ("label", "category", "split")}
    return {name: str(value) for name, value in plain.items() if isinstance(value, str | int) and str(value)}


def _split_in(place: str) -> str:
    """`train` or `test`, if a shard's name says so, or the name of the folder that it lies in; else nothing."""
    folder, name = ["", *place.lower().split("/")][-2:]
    words = [word for word in re.split(r"[._-]", name) if word in SPLITS]
    return words[0] if words else folder if folder in SPLITS else ""


def _rows(index: _Index, where: str) -> Iterator[Row]:
    """A row for each image. Raises DataError where a sample has no label or no split."""
    for path, sample in index.samples.items():
        facts = index.facts.get(sample, {})
        split = facts.get("split", "").lower()
        if "label" not in facts or split not in SPLITS:
            lacks = "no label" if "label" not in facts else "no split"
            raise DataError(
                f"{where}: the image {path} has {lacks}. A sample needs a .json with label and split (train, test), or "
                f"a .cls or .txt with its label and a shard whose name says train or test."
            )
        yield path, facts["label"], facts.get("category"), split


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
