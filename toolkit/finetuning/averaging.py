"""An exponential moving average of a model's weights during training, with torch's `AveragedModel`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.optim.swa_utils import AveragedModel

WARM_UP = 10


def averaged(model: "torch.nn.Module", decay: float) -> "AveragedModel | None":
    """An exponential moving average of a model's parameters and batch norm statistics; None for a decay of 0.

    Averaged weights generalise better than the last ones (Izmailov et al. 2018, section 3; for unseen domains Cha et
    al. 2021, SWAD). The average starts at the model's current weights; the decay after step k is at most k / (k + 10),
    so that they are soon forgotten. Read the result with `.module.state_dict()`. `.module` itself cannot embed: the
    text mask, which is not in the state dict, holds infinities, and their average is NaN.
    """
    import torch
    from torch.optim.swa_utils import AveragedModel

    def move(average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
        if not average.is_floating_point():
            return now  # batch norm's counter of batches
        return torch.lerp(average, now, 1 - min(decay, int(steps) / (int(steps) + WARM_UP)))

    if not decay:
        return None
    average = AveragedModel(model, avg_fn=move, use_buffers=True)
    average.update_parameters(model)  # the first update copies the model, so that later ones count steps
    return average
