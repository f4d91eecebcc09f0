"""Download CIFAKE with Kaggle's own client, which resumes interrupted downloads."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from toolkit.data.sources import open_data
from toolkit.errors import DataError, first_line
from toolkit.storage.network import can_reach

HANDLE = "birdy654/cifake-real-and-ai-generated-synthetic-images"
PAGE = f"https://www.kaggle.com/datasets/{HANDLE}"
HOST = "www.kaggle.com"
EXPECTED = {("train", "REAL"): 50_000, ("train", "FAKE"): 50_000, ("test", "REAL"): 10_000, ("test", "FAKE"): 10_000}
BY_HAND = f"By hand: download the zip from {PAGE} and save it as data/cifake.zip."

Client = Callable[[str, Path], Path]
"""(dataset's handle, download folder) -> the folder with the unpacked files. May raise any exception."""


def download_cifake(
    target: Path, client: Client | None = None, expected: dict[tuple[str, str], int] = EXPECTED
) -> bool:
    """Download CIFAKE to the folder `target`; returns False if it is there already. Raises DataError.

    An interrupted download is resumed; the folder appears once all images are there.
    """
    if target.exists():
        _check(target, expected)
        return False
    keep = target.with_name(f".{target.name}.download")
    client = client or _kaggle
    try:
        keep.mkdir(parents=True, exist_ok=True)
        found = client(HANDLE, keep)
    except DataError:
        raise
    except Exception as error:  # the client and the libraries below it raise many types
        reason = first_line(error)
        raise DataError(f"CIFAKE could not be downloaded ({reason}): the same command goes on. {BY_HAND}") from error
    _check(found, expected)
    found.replace(target)
    shutil.rmtree(keep, ignore_errors=True)
    return True


def _check(folder: Path, expected: dict[tuple[str, str], int]) -> None:
    """Raise DataError unless every split and label has the expected number of images, named as in CIFAKE."""
    dataset = open_data(folder)
    counted = {(split, label): count for split, label, count in dataset.rows.group_by("split", "label").len().rows()}
    wrong = [
        f"{counted.get(place, 0):,} of {count:,} images in {'/'.join(place)}"
        for place, count in expected.items()
        if counted.get(place) != count
    ]
    if not wrong and dataset.kind != "cifake":
        wrong = ["files of other names"]
    if wrong:
        raise DataError(
            f"{folder} is not the whole of CIFAKE ({wrong[0]}): remove it and run the command again. {BY_HAND}"
        )


def _kaggle(handle: str, keep: Path) -> Path:
    _require_network()
    os.environ["KAGGLEHUB_CACHE"] = str(keep.resolve())
    try:
        import kagglehub
    except ImportError as error:
        raise DataError(
            f'Downloading needs Kaggle\'s client: pip install "clip-toolkit[download]". {BY_HAND}'
        ) from error
    return Path(kagglehub.dataset_download(handle))


def _require_network() -> None:
    """Fail fast: without a network the client retries for minutes."""
    if not can_reach(HOST):
        raise DataError(f"There is no network to reach {HOST}. {BY_HAND}")
