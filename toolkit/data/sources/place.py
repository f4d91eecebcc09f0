"""A folder with images, and what the folders of its path mean."""

from dataclasses import dataclass, field

from toolkit.data.sources.vocabulary import split_named

Folders = tuple[str, ...]


@dataclass
class Place:
    """A folder with images, and which positions in its path are the split, the label and further levels."""

    folders: Folders
    images: list[str]
    split: int | None = None
    label: int | None = None
    further: dict[str, int] = field(default_factory=dict)

    def at(self, meaning: str) -> int | None:
        """The position of the folder with this meaning."""
        return {"split": self.split, "label": self.label, **self.further}.get(meaning)

    def value(self, meaning: str) -> str | None:
        """The name of the folder with this meaning."""
        at = self.at(meaning)
        return None if at is None else self.folders[at]

    def inside(self) -> str:
        """The path by which images are ordered: without split, label and the folders around everything."""
        first = min(at for at in (self.split, self.label, *self.further.values()) if at is not None)
        kept = [one for at, one in enumerate(self.folders) if at >= first and at not in (self.split, self.label)]
        return "".join(f"{one}/" for one in kept if not split_named(one))
