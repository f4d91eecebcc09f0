"""What can go wrong in a way that the user can mend. The command line prints each as one line and exits with 2."""

import difflib
from collections.abc import Iterable, Sequence


def counted(count: int, noun: str) -> str:
    """`1 image`, `2,000 images`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean knn?`, to be put behind a message, or nothing where no known word is near.

    >>> did_you_mean("logrg", ["zero-shot", "logreg", "knn"])
    ' Did you mean logreg?'
    """
    spelled = {one.lower(): one for one in known}
    near = difflib.get_close_matches(word.lower(), spelled, n=1)
    return f" Did you mean {spelled[near[0]]}?" if near else ""


def first_line(error: BaseException, most: int = 160) -> str:
    """The first line of what another library's error says, cut after `most` characters; the error's type if it says
    nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it is torch's of a GPU with too little memory; torch itself is not imported for that."""
    return type(error).__name__ == "OutOfMemoryError"


class ToolkitError(Exception):
    """The message says what is wrong, where, and the command that mends it."""


class DataError(ToolkitError):
    """The data set, or the place where it should be."""


class ImageError(ToolkitError):
    """One image; the message is a short reason. Commands list such images and go on."""


class EncoderError(ToolkitError):
    """A model's name, its weights, or a checkpoint."""


class UnknownBlocks(EncoderError):
    """An image tower in which the toolkit does not find the blocks."""


class CacheError(ToolkitError):
    """The embedding cache cannot be read or written."""


class CannotRead(CacheError):
    """A stored file that is there and cannot be read now: nothing says that it is damaged."""


class MissingEmbeddings(CacheError):
    """Vectors that were asked for have not been embedded yet."""


class SelectionError(ToolkitError):
    """The rows that were asked for do not exist: an unknown category, or too few images."""


class DistributedError(ToolkitError):
    """Processes that do one command together have lost each other."""


class ResultsError(ToolkitError):
    """The results folder cannot be read or written."""
