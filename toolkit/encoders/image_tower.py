"""An image tower without a text tower."""

from collections.abc import Sequence

import torch

from toolkit.encoders.checkpoint_files import LABEL_VECTORS


class ImageTower(torch.nn.Module):
    """The image tower `visual`, with the attribute names of an open_clip model but without `encode_text`.

    Once fine-tuned, it has a trained vector for each of `labels` in place of prompts: `label_vectors` `[labels, D]`.
    """

    def __init__(self, visual: torch.nn.Module):
        super().__init__()
        self.visual = visual
        self.labels: tuple[str, ...] = ()

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` floats -> `[N, D]`, projected, not normalised."""
        vectors: torch.Tensor = self.visual(images)
        return vectors

    def set_labels(self, labels: Sequence[str], vectors: torch.Tensor) -> None:
        """Set `labels` and their `vectors` `[labels, D]`, which become a trainable parameter."""
        self.labels = tuple(labels)
        self.register_parameter(LABEL_VECTORS, torch.nn.Parameter(vectors))

    def encode_labels(self, labels: Sequence[str]) -> torch.Tensor:
        """The vectors of `labels`, `[P, D]`. Raises NotImplementedError for a label without a vector."""
        unknown = [label for label in labels if label not in self.labels]
        if unknown:
            raise NotImplementedError(f"an image tower has no prompts, and no vector for the label {unknown[0]!r}")
        vectors: torch.Tensor = self.get_parameter(LABEL_VECTORS)
        return vectors[[self.labels.index(label) for label in labels]]
