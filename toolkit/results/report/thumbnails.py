"""The images on which a head was surest, right and wrong, as pictures inside the page."""

import base64
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
from PIL import Image

from toolkit.data.images import decode
from toolkit.errors import ImageError

EACH, EACH_OF_MANY = 10, 20
LARGEST = 112
LOSSLESS = 64


@dataclass(frozen=True)
class Thumbnail:
    """`source` is a `data:` address, or empty with the `reason` why there is no picture.

    `p` is P(second label) of two labels, and P(predicted label) of more. `label` is the true one.
    """

    path: str
    category: str
    label: str
    predicted: str
    p: float
    source: str
    reason: str


@dataclass(frozen=True)
class Row:
    """Images under a `title`: the surest of `count`."""

    title: str
    count: int
    images: list[Thumbnail]


Read = Callable[[str], bytes]


def rows(predictions: pl.DataFrame, labels: list[str], read: Read) -> list[Row]:
    """Mistakes first, then hits: those where the head was surest, the surest first.

    Of two labels there is a row for each label. Of more, one row has the surest mistakes of all labels, and another the
    surest hit of each label.
    """
    if len(labels) > 2:
        return _rows_of_many(predictions, read)
    found = []
    for right in (False, True):
        for label, other in (labels, labels[::-1]):
            called = label if right else other
            mine = predictions.filter((pl.col("label") == label) & (pl.col("predicted") == called))
            title = f"{label} recognised" if right else f"{label} called {called}"
            surest = mine.sort((pl.col("p_real") - 0.5).abs(), "path", descending=[True, False])
            found.append(_row(title, len(mine), surest.head(EACH), "p_real", read))
    return found


def _rows_of_many(predictions: pl.DataFrame, read: Read) -> list[Row]:
    surest = predictions.sort("p_predicted", "path", descending=[True, False])
    is_right = pl.col("label") == pl.col("predicted")
    mistakes, hits = surest.filter(~is_right), surest.filter(is_right)
    one_each = hits.unique("label", keep="first", maintain_order=True)
    return [
        _row("Mistakes", len(mistakes), mistakes.head(EACH_OF_MANY), "p_predicted", read),
        _row("Hits, the surest of each label", len(hits), one_each.head(EACH_OF_MANY), "p_predicted", read),
    ]


def _row(title: str, count: int, images: pl.DataFrame, p: str, read: Read) -> Row:
    return Row(title, count, [_thumbnail(one, p, read) for one in images.iter_rows(named=True)])


def _thumbnail(row: dict[str, Any], p: str, read: Read) -> Thumbnail:
    path = str(row["path"])
    source, reason = picture(read, path, row["sha256"])
    return Thumbnail(path, row["category"] or "", row["label"], row["predicted"], row[p], source, reason)


def picture(read: Read, path: str, sha256: str | None) -> tuple[str, str]:
    """The image at `path` as a `data:` address; or an empty one, and the reason."""
    try:
        data = read(path)
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise ImageError("its bytes are no longer those that were scored")
        return data_address(decode(data)), ""
    except (ImageError, OSError, KeyError) as error:
        return "", str(error) if isinstance(error, ImageError) else "not in the data any more"


def data_address(image: Image.Image) -> str:
    """An RGB image as a `data:` address: small ones as they are, in PNG; larger ones shrunk, in JPEG."""
    file = io.BytesIO()
    if max(image.size) <= LOSSLESS:
        image.save(file, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    image = image.copy()
    image.thumbnail((LARGEST, LARGEST))
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
