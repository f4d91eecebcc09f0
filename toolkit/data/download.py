"""Fetch CIFAKE from Kaggle with Kaggle's own client, which goes on where it was interrupted."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from toolkit.data.sources import open_data
from toolkit.errors import DataError

HANDLE = "birdy654/cifake-real-and-ai-generated-synthetic-images"
PAGE = f"https://www.kaggle.com/datasets/{HANDLE}"
HOST = "www.kaggle.com"
EXPECTED = {("train", "REAL"): 50_000, ("train", "FAKE"): 50_000, ("test", "REAL"): 10_000, ("test", "FAKE"): 10_000}
BY_HAND = f"By hand: download the zip from {PAGE} and save it as data/cifake.zip."

Client = Callable[[str, Path], Path]
"""(dataset's handle, folder to keep things in) -> the folder with the unpacked files. Raises whatever goes wrong."""


def download_cifake(
    target: Path, client: Client | None = None, expected: dict[tuple[str, str], int] = EXPECTED
) -> bool:
    """Bring CIFAKE to the folder `target` -> whether that took a download. Raises DataError.

    What was downloaded before is not downloaded again; the folder appears once its images are all there.
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
    except Exception as error:  # whatever the client and its many layers raise
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise DataError(f"CIFAKE could not be downloaded ({reason}): the same command goes on. {BY_HAND}") from error
    _check(found, expected)
    found.replace(target)
    shutil.rmtree(keep, ignore_errors=True)
    return True


def _check(folder: Path, expected: dict[tuple[str, str], int]) -> None:
    """Every split and label must have its number of images, under CIFAKE's names."""
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
    """The client would try for minutes. One attempt at a connection says enough; behind a proxy only it can tell."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return
    try:
        socket.create_connection((HOST, 443), timeout=3).close()
    except OSError as error:
        raise DataError(f"There is no network to reach {HOST}. {BY_HAND}") from error
