"""Samples in tar shards (WebDataset): which file gives the label of which image.

An image belongs to the file of the same stem (`a.000.jpg` to `a.000.cls`), else to one of the same key, the name up to
its first dot (`000.left.jpg` to `000.cls`), unless files with different labels share that key. The label comes from
`.json`, else from `.cls`. `.txt` is a label only if the data has neither, because it is a caption otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from toolkit.data.manifest import SCHEMA
from toolkit.data.sources.assemble import Found, Reading, found_in_folders
from toolkit.data.sources.shard_index import FACTS, Shard
from toolkit.data.sources.template import RESERVED
from toolkit.data.sources.vocabulary import split_folder, split_in_path
from toolkit.errors import DataError

Placed = tuple[str, str, Shard]
"""A shard's place, the prefix of its members' names in the manifest, and its contents."""


def found_in_shards(shards: Sequence[Placed], asked: Reading) -> Found:
    """The rows of shards, from their samples or else from their folders. Raises DataError."""
    passed_over = [(prefix + name, why) for _, prefix, shard in shards for name, why in shard.passed_over]
    paths = [prefix + name for _, prefix, shard in shards for name, _, _ in shard.images]
    kinds = {_suffix(name) for *_, shard in shards for name, facts in shard.facts.items() if "label" in facts}
    folders = None
    if asked.layout or not kinds & {".json", ".cls"}:
        folders = found_in_folders(paths, passed_over, asked)
        described = any(shard.facts for *_, shard in shards)
        in_folders = len(folders.rows) and (not kinds or (folders.by_words and folders.rows["split"].count()))
        if asked.layout or in_folders or not described:
            beside = [
                (prefix + name, f"no picture ({_suffix(name)})") for _, prefix, one in shards for name in one.facts
            ]
            folders.passed_over += beside
            return folders
    trusted = FACTS[:2] if kinds & {".json", ".cls"} else FACTS
    found = Found(pl.DataFrame(schema=SCHEMA), passed_over, kind="shards", read_as="")
    rows: list[dict[str, str | None]] = []
    for place, prefix, shard in shards:
        rows += _rows(shard, prefix, place, trusted, found.passed_over)
    if not rows:
        first = next((f"{path}: {why}" for path, why in found.passed_over), "no images")
        raise DataError(f"{shards[0][0]} has no labelled images ({first}).")
    names = list(dict.fromkeys([*SCHEMA, *(name for row in rows for name in row)]))
    found.rows = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String))
    found.rows, twice = _once(found.rows)
    found.passed_over += twice
    used = [name for name in names if name != "path" and found.rows[name].count()]
    found.levels = [("sample", name) for name in used]
    return found


def _once(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, str]]]:
    """Of members with the same name the last counts, as for tar."""
    again = rows.filter(~pl.col("path").is_last_distinct())
    return rows.filter(pl.col("path").is_last_distinct()), [
        (path, "repeated later in its shard") for path in again["path"]
    ]


def _rows(
    shard: Shard, prefix: str, place: str, trusted: Sequence[str], passed_over: list[tuple[str, str]]
) -> Iterator[dict[str, str | None]]:
    """A row for each image of a shard; images without a label, or with two, are skipped."""
    by_stem = _grouped(shard.facts, stem_of)
    by_key = _grouped(shard.facts, key_of)
    stems = {stem_of(name) for name, *_ in shard.images}
    of_the_shard = split_in_path("/".join(place.split("/")[-2:]))
    for name, _, _ in shard.images:
        beside = by_stem.get(stem_of(name)) or [
            one for one in by_key.get(key_of(name), []) if stem_of(one) not in stems - {stem_of(name)}
        ]
        facts, labels = _said(beside, shard.facts, trusted)
        if len(labels) > 1:
            both = " and ".join(f"{label} ({one})" for label, one in labels.items())
            passed_over.append((prefix + name, f"two labels belong to it: {both}"))
        elif not labels:
            passed_over.append((prefix + name, "no label: no .json with a label and no .cls belongs to it"))
        else:
            split = facts.get("split") or of_the_shard or split_folder(name)
            further = {one: value for one, value in facts.items() if one not in RESERVED}
            yield {**further, "path": prefix + name, "label": next(iter(labels)), "split": split}


def _said(
    beside: Sequence[str], facts: Mapping[str, dict[str, str]], trusted: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields from the files of an image, the most reliable file last; and label -> file, for the most reliable kind
    that gives labels."""
    said: dict[str, Any] = {}
    for kind in reversed(trusted):
        for name in (one for one in beside if _suffix(one) == kind):
            said |= facts[name]
    for kind in trusted:
        labels = {facts[one]["label"]: one for one in beside if _suffix(one) == kind and "label" in facts[one]}
        if labels:
            return said, labels
    return said, {}


def _grouped(names: Mapping[str, Any], by: Any) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(by(name), []).append(name)
    return groups


def stem_of(name: str) -> str:
    """A member's name without its suffix."""
    return name[: len(name) - len(_suffix(name))] if _suffix(name) else name


def key_of(name: str) -> str:
    """A member's name up to the first dot of its last part: WebDataset's own key."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".", 1)[0]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
