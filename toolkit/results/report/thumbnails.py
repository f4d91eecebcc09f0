"""The images of which a head was surest, rightly and wrongly, as pictures inside the page."""

import base64
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
from PIL import Image

from toolkit.data.images import decode
from toolkit.errors import ImageError

EACH = 10
LARGEST = 112
LOSSLESS = 64


@dataclass(frozen=True)
class Thumbnail:
    """`source` is a `data:` address, or empty with the `reason` why there is no picture. `p` is P(second label)."""

    path: str
    category: str
    p: float
    source: str
    reason: str


@dataclass(frozen=True)
class Row:
    """Images of one true label that were all called the same: hits where both agree."""

    label: str
    predicted: str
    count: int
    images: list[Thumbnail]

    @property
    def right(self) -> bool:
        return self.label == self.predicted


Read = Callable[[str], bytes]


def rows(predictions: pl.DataFrame, labels: list[str], read: Read) -> list[Row]:
    """Mistakes first, then hits, a row for each label: those of which the head was surest, the surest first."""
    sure = predictions.with_columns(sure=(pl.col("p_real") - 0.5).abs())
    found = []
    for right in (False, True):
        for label in labels:
            other = next(one for one in labels if one != label)
            called = label if right else other
            mine = sure.filter((pl.col("label") == label) & (pl.col("predicted") == called))
            surest = mine.sort("sure", "path", descending=[True, False]).head(EACH)
            shown = [_thumbnail(one, read) for one in surest.iter_rows(named=True)]
            found.append(Row(label, called, len(mine), shown))
    return found


def _thumbnail(row: dict[str, object], read: Read) -> Thumbnail:
    path = str(row["path"])
    source, reason = "", ""
    try:
        data = read(path)
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise ImageError("its bytes are no longer those that were scored")
        source = data_address(decode(data))
    except (ImageError, OSError, KeyError) as error:
        reason = str(error) if isinstance(error, ImageError) else "not in the data any more"
    return Thumbnail(path, str(row["category"] or ""), float(str(row["p_real"])), source, reason)


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
