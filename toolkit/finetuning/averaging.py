"""The moving average of a model's weights along its training, kept by torch's `AveragedModel`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.optim.swa_utils import AveragedModel

WARM_UP = 10


def averaged(model: "torch.nn.Module", decay: float) -> "AveragedModel | None":
    """An exponential moving average of a model's parameters and batch norms' statistics; None for a decay of 0.

    Averages along the way generalise better than where a run ends (Izmailov et al. 2018, section 3; Cha et al. 2021,
    SWAD, for domains that training never saw). It starts as the model is now, and the first steps count less: the
    decay after step k is at most k / (k + 10). Its weights are `.module.state_dict()`. `.module` itself cannot embed:
    the average of a text mask's infinities, which no state dict holds, is not a number.
    """
    import torch
    from torch.optim.swa_utils import AveragedModel

    def move(average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
        if not average.is_floating_point():
            return now  # how many batches a batch norm has seen
        return torch.lerp(average, now, 1 - min(decay, int(steps) / (int(steps) + WARM_UP)))

    if not decay:
        return None
    average = AveragedModel(model, avg_fn=move, use_buffers=True)
    average.update_parameters(model)  # its first update takes the model as it is, so that later ones count steps
    return average
