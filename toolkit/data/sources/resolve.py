"""Find the files that paths in tables mean, despite backslashes, absolute paths of another computer, and another case
or Unicode form."""

import os
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from toolkit.data.manifest import escape, folded, unescape

ABSOLUTE = re.compile(r"/|[A-Za-z]:[/\\]|\\\\")


class Finder:
    """Finds the file that a path in a table means. Subclasses look up files in `_below`."""

    def __init__(self, root: str = ""):
        self.root = root
        self.dropped: int | None = None

    def find(self, path: str, base: str = "") -> str | None:
        """The escaped name of the file that a table in the folder `base` calls `path`; None if there is none, or
        several that differ only in case or Unicode form."""
        unescaped = os.fsdecode(unescape(path))  # as this toolkit's own tables name files
        for one in dict.fromkeys([path, path.replace("\\", "/"), unescaped]):
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
        """Drop leading folders until a file is found; later paths drop the same number."""
        parts = [part for part in path.split("/") if part]
        for count in range(1, len(parts)) if self.dropped is None else (self.dropped,):
            found = self._below("/".join(parts[count:]))
            if found:
                self.dropped = count
                return found
        return None

    def _below(self, plain: str) -> str | None:
        """The file with this path, or the only one that differs just in case or Unicode form."""
        raise NotImplementedError

    def _anywhere(self, name: str) -> str | None:
        """The only file with this name, for tables without folders."""
        return None


class Names(Finder):
    """Looks up a list of relative, escaped names."""

    def __init__(self, names: Iterable[str]):
        super().__init__()
        self.names = set(names)
        self.alike: dict[str, list[str]] = {}
        self.called: dict[str, list[str]] = {}
        for name in self.names:
            self.alike.setdefault(folded(name), []).append(name)
            self.called.setdefault(folded(name.rsplit("/", 1)[-1]), []).append(name)

    def _below(self, plain: str) -> str | None:
        name = escape(plain)
        alike = self.alike.get(folded(name), [])
        return name if name in self.names else alike[0] if len(alike) == 1 else None

    def _anywhere(self, name: str) -> str | None:
        found = self.called.get(folded(escape(name)), [])
        return found[0] if len(found) == 1 else None


class Files(Finder):
    """Looks up files below a local folder; lists it only if a path does not exist as written."""

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
            alike = self._alike_in(at).get(folded(part), [])
            if len(alike) != 1:
                return None
            at = f"{at}/{alike[0]}".lstrip("/")
        return escape(at)

    def _anywhere(self, name: str) -> str | None:
        """Searches only the folders beside the table, as there may be a whole disk below them."""
        folders = [one for names in self._alike_in("").values() for one in names]
        found = [f"{folder}/{one}" for folder in folders for one in self._alike_in(folder).get(folded(name), [])]
        return escape(found[0]) if len(found) == 1 else None

    def _alike_in(self, folder: str) -> dict[str, list[str]]:
        if folder not in self.listed:
            self.listed[folder] = {}
            place = os.path.join(self.root, folder)
            for name in os.listdir(place) if os.path.isdir(place) else ():
                self.listed[folder].setdefault(folded(name), []).append(name)
        return self.listed[folder]


class AsWritten(Finder):
    """Takes relative paths as they are, for addresses whose files cannot be listed."""

    def _below(self, plain: str) -> str | None:
        return escape(plain)

    def _of_another_computer(self, path: str) -> str | None:
        return None


def _plain(path: str) -> str:
    """Without `./`, double slashes, and `x/..`. A `..` in front stays; the reader refuses it."""
    return posixpath.normpath(path.lstrip("/"))
