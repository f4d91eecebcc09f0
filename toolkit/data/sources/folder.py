"""A folder of images: CIFAKE unpacked, or `split/label/category/…`."""

from pathlib import Path

from toolkit.data.manifest import Dataset
from toolkit.data.sources.assemble import Reading
from toolkit.data.sources.files import head_below, names_below, reader_below
from toolkit.data.sources.listing import sort_out
from toolkit.data.sources.local import files_below, head_of, reader
from toolkit.data.sources.table import open_listing


def open_folder(root: Path, name: str, asked: Reading) -> Dataset:
    """The data set below `root`. Raises DataError if neither its folders nor a table tell splits and labels."""
    passed_over: list[tuple[str, str]] = []
    listing = sort_out(list(files_below(root, passed_over)), head_of(root), passed_over)
    return open_listing(listing, name, "images in the folder", str(root), reader(root), asked)


def open_folder_at(address: str, name: str, asked: Reading) -> Dataset:
    """The data set below an fsspec address. Raises DataError as `open_folder` does."""
    listing = sort_out(names_below(address), head_below(address))
    return open_listing(listing, name, "images in the folder", address, reader_below(address), asked)
