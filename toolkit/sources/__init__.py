"""Where images come from. `open_data` decides by looking; each kind of source has a file of its own."""

from pathlib import Path

from toolkit.errors import DataError
from toolkit.manifest import Dataset

STANDARD_PLACES = (Path("data/cifake"), Path("data/cifake.zip"))
TABLES = (".csv", ".parquet")


def open_data(path: str | Path | None = None, name: str | None = None) -> Dataset:
    """The data set at `path`; without one, CIFAKE from `data/cifake` or `data/cifake.zip`, else the built-in sample.

    Looks at names only; no image is read. Raises DataError where nothing is there, or nothing that it knows.
    """
    if path is None:
        path = next((place for place in STANDARD_PLACES if place.exists()), None)
    if path is None or str(path) == "sample":
        from toolkit.sources.sample import sample

        return sample()
    place = Path(path)
    if not place.exists():
        raise DataError(
            f"No data at {place}: --data takes CIFAKE as a folder or zip, folders split/label/category/, or a CSV or "
            f"Parquet of paths; leave it out to use the built-in sample."
        )
    return _open(place, name or place.stem)


def _open(place: Path, name: str) -> Dataset:
    if place.is_dir():
        from toolkit.sources.folder import open_folder

        return open_folder(place, name)
    if place.suffix.lower() == ".zip":
        from toolkit.sources.archive import open_zip

        return open_zip(place, name)
    if place.suffix.lower() in TABLES:
        from toolkit.sources.table import open_table

        return open_table(place, name)
    raise DataError(f"{place} is neither a folder, nor a .zip, nor a .csv or .parquet of paths.")
