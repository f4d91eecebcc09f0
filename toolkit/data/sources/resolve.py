"""Paths as people write them in tables -> the files they mean: backslashes, another computer's absolute paths, another
case or Unicode form."""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from toolkit.data.manifest import escape

ABSOLUTE = re.compile(r"/|[A-Za-z]:[/\\]|\\\\")


class Finder:
    """Finds the file that a table means by a path. `_below` knows the files; this knows how paths are written."""

    def __init__(self, root: str = ""):
        self.root = root
        self.dropped: int | None = None

    def find(self, path: str, base: str = "") -> str | None:
        """The escaped name of the file that a table in the folder `base` calls `path`; None where there is none, or
        more than one that is alike."""
        for one in dict.fromkeys([path, path.replace("\\", "/")]):
            inside = one.removeprefix(f"{self.root}/") if self.root else one
            if not ABSOLUTE.match(inside):
                places = [f"{base}/{inside}", inside] if base else [inside]
                found = next((name for name in map(self._below, map(_plain, places)) if name), None)
                found = found or (None if "/" in inside else self._anywhere(inside))
            else:
                found = self._of_another_computer(inside)
            if found:
                return found
        return None

    def _of_another_computer(self, path: str) -> str | None:
        """Without the folders above the data; as many as were left out of the first path that was found."""
        parts = [part for part in path.split("/") if part]
        for count in range(1, len(parts)) if self.dropped is None else (self.dropped,):
            found = self._below("/".join(parts[count:]))
            if found:
                self.dropped = count
                return found
        return None

    def _below(self, plain: str) -> str | None:
        """The file at this place, or at the only one that is alike."""
        raise NotImplementedError

    def _anywhere(self, name: str) -> str | None:
        """The only file of this name, where a table gives no folders."""
        return None


class Names(Finder):
    """Among names that are known, relative and escaped."""

    def __init__(self, names: Iterable[str]):
        super().__init__()
        self.names = set(names)
        self.alike: dict[str, list[str]] = {}
        self.called: dict[str, list[str]] = {}
        for name in self.names:
            self.alike.setdefault(_key(name), []).append(name)
            self.called.setdefault(_key(name.rsplit("/", 1)[-1]), []).append(name)

    def _below(self, plain: str) -> str | None:
        name = escape(plain)
        alike = self.alike.get(_key(name), [])
        return name if name in self.names else alike[0] if len(alike) == 1 else None

    def _anywhere(self, name: str) -> str | None:
        found = self.called.get(_key(escape(name)), [])
        return found[0] if len(found) == 1 else None


class Files(Finder):
    """Below a folder on this machine, which is looked into where a name is not there as it is written."""

    def __init__(self, root: Path):
        super().__init__(os.path.abspath(root))
        self.listed: dict[str, dict[str, list[str]]] = {}

    def _below(self, plain: str) -> str | None:
        if "\0" in plain:
            return None
        if os.path.lexists(os.path.join(self.root, plain)):
            return escape(plain)
        at = ""
        for part in plain.split("/"):
            alike = self._alike_in(at).get(_key(part), [])
            if len(alike) != 1:
                return None
            at = f"{at}/{alike[0]}".lstrip("/")
        return escape(at)

    def _anywhere(self, name: str) -> str | None:
        """In the folders beside the table alone: below them may be a whole disk."""
        folders = [one for names in self._alike_in("").values() for one in names]
        found = [f"{folder}/{one}" for folder in folders for one in self._alike_in(folder).get(_key(name), [])]
        return escape(found[0]) if len(found) == 1 else None

    def _alike_in(self, folder: str) -> dict[str, list[str]]:
        if folder not in self.listed:
            self.listed[folder] = {}
            place = os.path.join(self.root, folder)
            for name in os.listdir(place) if os.path.isdir(place) else ():
                self.listed[folder].setdefault(_key(name), []).append(name)
        return self.listed[folder]


class AsWritten(Finder):
    """Where nothing can be asked for names, as behind an address: relative paths with slashes are taken as they are."""

    def _below(self, plain: str) -> str | None:
        return escape(plain)

    def _of_another_computer(self, path: str) -> str | None:
        return None


def _plain(path: str) -> str:
    """Without `./` and double slashes; `..` stays, for whoever reads to refuse."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
