"""Interpolation between the weights of the base encoder and those of a fine-tuned one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mix(
    base: "Mapping[str, torch.Tensor]", tuned: "Mapping[str, torch.Tensor]", alpha: float
) -> "dict[str, torch.Tensor]":
    """`(1 - alpha) * base + alpha * tuned`: WiSE-FT (Wortsman et al. 2022, section 3).

    This applies to both towers and to the statistics of batch norm. Integers (counters) are the fine-tuned model's. At
    1 the weights are the fine-tuned ones, bit for bit.
    """
    if alpha == 1:
        return dict(tuned)
    return {
        name: base[name].to(value.device).lerp(value, alpha) if value.is_floating_point() else value
        for name, value in tuned.items()
    }
