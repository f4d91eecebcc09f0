"""A page of pictures alone: titled rows of thumbnails with a few words under each. One file, without a script."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.results.report import pictures
from toolkit.results.report.templating import templates
from toolkit.results.report.thumbnails import Read, picture
from toolkit.storage.records import write_whole


@dataclass(frozen=True)
class Picture:
    """`lines` stand under the picture. `source` is a `data:` address, or empty with the `reason`."""

    path: str
    lines: Sequence[str]
    source: str
    reason: str


@dataclass(frozen=True)
class Row:
    """Pictures under a `title` and a `note`."""

    title: str
    note: str
    images: Sequence[Picture]


def drawn(read: Read, path: str, sha256: str | None, lines: Sequence[str]) -> Picture:
    """The picture at `path`, if its bytes are still those with this hash, where one is known."""
    return Picture(path, lines, *picture(read, path, sha256))


def write(file: Path, title: str, lead: Sequence[str], rows: Iterable[Row]) -> None:
    """Write the page. Text from data is escaped by the template. Raises CacheError."""
    environment, loader = templates()
    style = pictures.style() + loader("report.css")
    html = environment.get_template("gallery.html").render(title=title, lead=lead, rows=list(rows), style=style)
    write_whole(file, html.encode())
