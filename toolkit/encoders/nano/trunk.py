"""nano's image trunk: a nine-layer residual network for 32x32 images, registered with timm for open_clip to find.

The layout follows the small networks of the DAWNBench CIFAR-10 entries (Page 2018, "How to train your ResNet"):
convolutions at full resolution first, so that no detail is lost to pooling.
"""

import timm.models
import torch
from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    shrink = nn.MaxPool2d(2) if pool else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), shrink, nn.BatchNorm2d(outputs), nn.GELU()
    )


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class NanoTrunk(nn.Module):
    """Images `[B, 3, 32, 32]` float32 -> features `[B, 512]`: the mean and the maximum of 256 channels."""

    num_features = 512
    default_cfg: dict[str, object] = {}

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(3, 32),
            _convolution(32, 64, pool=True),
            _convolution(64, 128, pool=True),
            _Residual(128),
            _convolution(128, 256, pool=True),
            _Residual(256),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)

    def reset_classifier(self, num_classes: int) -> None:
        """open_clip calls this on every timm trunk to remove the classifier; this one has none."""


@timm.models.register_model
def toolkit_nano(**_: object) -> NanoTrunk:
    """The entry point that `"timm_model_name": "toolkit_nano"` in `nano.json` resolves to."""
    return NanoTrunk()
