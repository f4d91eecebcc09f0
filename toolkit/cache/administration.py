"""Manage a cache: list its encoders, verify its files, remove an encoder."""

import shlex
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.cache import segments
from toolkit.cache.store import RECORD, Cache, encoder_folders, encoder_record
from toolkit.data import near_copies, perturb, unreadable
from toolkit.errors import CacheError
from toolkit.storage import kept
from toolkit.storage.damage import checked, state


def list_encoders(root: Path) -> list[dict[str, Any]]:
    """The encoders in the cache: a dict for each with its name, numbers of rows, bytes and time of the last change."""
    found = []
    for folder in encoder_folders(root):
        record = encoder_record(folder)
        if record is None:
            continue
        cache = Cache(root, record)
        files = [path.stat() for path in folder.glob("*") if path.is_file()]
        found.append(
            {
                "encoder": folder.name,
                "identity": record.identity,
                "kind": record.name,
                "images": cache.count_images(),
                "prompts": cache.count_prompts(),
                "bytes": sum(file.st_size for file in files),
                "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(max(file.st_mtime for file in files))),
            }
        )
    return found


def count_kept(root: Path) -> dict[str, int]:
    """What is kept beside the encoders: numbers of `listings` (zips, shards, the sample) and of fitted `heads`, and the
    `bytes` of both."""
    folders = [record.relative_to(root).parts[0] for record in kept.records(root)]
    files = [file for folder in (kept.LISTINGS, kept.FITS) for file in (root / folder).rglob("*") if file.is_file()]
    sizes = sum(file.stat().st_size for file in files)
    return {"listings": folders.count(kept.LISTINGS), "heads": folders.count(kept.FITS), "bytes": sizes}


def verify(root: Path) -> list[dict[str, str]]:
    """Check every file in the cache: a dict for each (path, state `whole`, `damaged` or `cannot be read`). Changes
    nothing."""
    report: list[dict[str, str]] = []
    for folder in encoder_folders(root):
        report += [state(path, partial(segments.is_whole, path)) for path in sorted(folder.glob("*.h5"))]
        report += checked(folder / RECORD)
    patterns = (unreadable.FILE, perturb.RECORDS, f"{near_copies.FOLDER}/*.json")
    others = [record for pattern in patterns for record in sorted(root.glob(pattern))]
    report += [one for record in others for one in checked(record)]
    for record in sorted((root / "checkpoints").glob("*/*.json")):
        report += checked(record, partial(_weights, record))
    for record in kept.records(root):
        report += checked(record, partial(kept.files_of, record))
    return report


def remove(root: Path, identity: str) -> list[str]:
    """Delete the one encoder whose identity or folder starts with `identity`, with the heads fitted on it; and its
    fine-tuned weights, unless another encoder in the cache was made of them. Returns the folders' names. Raises
    CacheError for none or several."""
    folder = _only_folder(root, identity)
    record, gone = encoder_record(folder), [folder]
    others = [one.trained_on for one in map(encoder_record, encoder_folders(root)) if one and one != record]
    if record and record.trained_on and record.trained_on not in others:
        weights = root / "checkpoints" / record.trained_on.checkpoint
        gone += [weights] if weights.is_dir() else []
    for one in gone:
        shutil.rmtree(one)
    if record:
        kept.remove(root, record.identity)
    return [one.relative_to(root).as_posix() for one in gone]


def only_encoder(root: Path, identity: str) -> Cache:
    """The one encoder whose identity or folder starts with `identity`. Raises CacheError for none or several."""
    folder = _only_folder(root, identity)
    record = encoder_record(folder)
    if record is None:
        raise CacheError(f"The record of {folder} is lost: run python cli.py embed again, or remove the folder.")
    return Cache(root, record)


def _only_folder(root: Path, identity: str) -> Path:
    called = {folder: (folder.name, folder.name.rsplit("-", 1)[-1]) for folder in encoder_folders(root)}
    found = [folder for folder, names in called.items() if identity and any(n.startswith(identity) for n in names)]
    if not found:
        raise CacheError(f"No encoder {identity!r} in {root}: {_list_of(root)} shows what is there.")
    if len(found) > 1:
        raise CacheError(
            f"{identity!r} is the start of several encoders: {', '.join(one.name for one in found)}. Name one in full; "
            f"{_list_of(root)} says which is fine-tuned."
        )
    return found[0]


def _list_of(root: Path) -> str:
    """The command that lists this cache."""
    return f"python cli.py cache list --cache {shlex.quote(str(root))}"


def _weights(record: Path, facts: Mapping[str, Any]) -> dict[Path, str]:
    """The weights beside a checkpoint's record, finished or of an epoch, and their SHA-256; none without weights."""
    finished = {record.parent / "weights.safetensors": facts.get("weights_file_sha256")}
    of_epoch = {record.with_suffix(".safetensors"): facts.get("sha256")}
    return {path: known for path, known in {**finished, **of_epoch}.items() if known}
