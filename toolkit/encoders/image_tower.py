"""An image tower alone: what is left of a CLIP whose checkpoint has no text tower."""

import torch


class ImageTower(torch.nn.Module):
    """The image tower `visual` of a model of open_clip's, under that model's names. It has no `encode_text`."""

    def __init__(self, visual: torch.nn.Module):
        super().__init__()
        self.visual = visual

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` floats -> `[N, D]`, projected, not normalised."""
        vectors: torch.Tensor = self.visual(images)
        return vectors
