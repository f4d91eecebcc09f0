"""Manage a cache: list its encoders, verify its files, remove an encoder."""

import hashlib
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from toolkit.cache import segments
from toolkit.cache.store import RECORD, Cache, encoder_folders, encoder_record
from toolkit.data import near_copies, unreadable
from toolkit.errors import CacheError
from toolkit.storage import kept
from toolkit.storage.records import read_record


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


def verify(root: Path) -> list[dict[str, Any]]:
    """Check every file in the cache: a dict for each (path, state `whole` or `damaged`). Changes nothing."""
    report = []
    for folder in encoder_folders(root):
        for path in sorted(folder.glob("*.h5")):
            report.append({"path": str(path), "state": "whole" if segments.is_whole(path) else "damaged"})
        report.append({"path": str(folder / RECORD), "state": _record_state(folder / RECORD)})
    if (root / unreadable.FILE).exists():
        report.append({"path": str(root / unreadable.FILE), "state": _record_state(root / unreadable.FILE)})
    for record in sorted((root / near_copies.FOLDER).glob("*.json")):
        report.append({"path": str(record), "state": _record_state(record)})
    for record in sorted((root / "checkpoints").glob("*/*.json")):
        report.append({"path": str(record), "state": _record_state(record)})
        report += _weights_state(record)
    return [*report, *kept.states(root)]


def remove(root: Path, identity: str) -> list[str]:
    """Delete the encoders whose identity or folder starts with `identity`, with their fine-tuned weights. Returns the
    folders' names. Raises CacheError if there is none."""
    names = folders_of(root, identity)
    trained = [record.trained_on for record in map(encoder_record, names) if record and record.trained_on]
    weights = [root / "checkpoints" / one.checkpoint for one in trained]
    gone = [*names, *(folder for folder in weights if folder.is_dir())]
    for folder in gone:
        shutil.rmtree(folder)
    return [folder.relative_to(root).as_posix() for folder in gone]


def folders_of(root: Path, identity: str) -> list[Path]:
    """The folders of encoders whose identity or folder starts with `identity`. Raises CacheError if there is none."""
    names = [
        f
        for f in encoder_folders(root)
        if f.name.startswith(identity) or f.name.rsplit("-", 1)[-1].startswith(identity)
    ]
    if not names:
        raise CacheError(f"No encoder {identity!r} in {root}: {_list_of(root)} shows what is there.")
    return names


def only_encoder(root: Path, identity: str) -> Cache:
    """The one encoder whose identity or folder starts with `identity`. Raises CacheError for none or several."""
    names = folders_of(root, identity)
    record = encoder_record(names[0])
    if len(names) > 1 or record is None:
        raise CacheError(
            f"{identity!r} is the start of several encoders: {', '.join(one.name for one in names)}. Name one in full; "
            f"{_list_of(root)} says which is fine-tuned."
        )
    return Cache(root, record)


def _list_of(root: Path) -> str:
    """The command that lists this cache."""
    return f"python cli.py cache list --cache {shlex.quote(str(root))}"


def _record_state(path: Path) -> str:
    try:
        read_record(path)
    except CacheError:
        return "damaged"
    return "whole"


def _weights_state(record: Path) -> list[dict[str, Any]]:
    """The state of the weights named in a checkpoint's record; nothing if the record is damaged, or names none."""
    try:
        facts = read_record(record)
    except CacheError:
        return []
    if not {"sha256", "weights_file_sha256"} & set(facts):
        return []
    finished = "weights_file_sha256" in facts
    weights = record.parent / "weights.safetensors" if finished else record.with_suffix(".safetensors")
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        digest = ""
    expected = facts["weights_file_sha256"] if finished else facts.get("sha256")
    return [{"path": str(weights), "state": "whole" if digest == expected else "damaged"}]
