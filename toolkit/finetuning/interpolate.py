"""Encoders between the base encoder and a fine-tuned one, by their weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mix(
    base: "Mapping[str, torch.Tensor]", tuned: "Mapping[str, torch.Tensor]", alpha: float
) -> "dict[str, torch.Tensor]":
    """`(1 - alpha)` of the base weights and `alpha` of the fine-tuned ones: WiSE-FT (Wortsman et al. 2022, section 3).

    Both towers and the statistics of batch norms alike; whole numbers (counters) are the fine-tuned model's. At 1 the
    weights are the fine-tuned ones, bit for bit.
    """
    if alpha == 1:
        return dict(tuned)
    return {
        name: base[name].to(value.device).lerp(value, alpha) if value.is_floating_point() else value
        for name, value in tuned.items()
    }
