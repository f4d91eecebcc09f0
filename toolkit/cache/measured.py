"""What embedding took, over the segments of an encoder."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.storage.work import Work


@dataclass(frozen=True)
class Measured:
    """Mean wall `seconds` to embed one image or prompt, the `bytes` of its vector, and the machines that measured it.

    `seconds` is the mean over the segments whose work was measured; None if there is none. `bytes` is None for no
    vectors."""

    seconds: float | None
    bytes: int | None
    on: tuple[str, ...]


def measured_over(segments: Sequence[tuple[int, int, Work | None]]) -> Measured:
    """The mean over segments, each with its number of vectors, the bytes of a vector, and its work, if measured."""
    works = [(count, work) for count, _, work in segments if work and count]
    count, seconds = sum(count for count, _ in works), sum(work.seconds for _, work in works)
    machines = tuple(dict.fromkeys(work.on for _, work in works))
    return Measured(seconds / count if count else None, segments[-1][1] if segments else None, machines)
