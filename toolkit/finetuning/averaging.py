"""The mean of a model's weights along its training."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WARM_UP = 10


class Average:
    """An exponential moving average of everything in a model's state dict: parameters and batch norms' statistics.

    Averages along the way generalise better than where a run ends (Izmailov et al. 2018, section 3; Cha et al. 2021,
    SWAD, for domains that training never saw). The first steps count less: the decay after step k is at most
    k / (k + 10). With a decay of 0 it is the model itself. `state` is the average.
    """

    def __init__(self, model: "torch.nn.Module", decay: float, steps: int = 0):
        self.model, self.decay, self.steps = model, decay, steps
        self.state = {name: tensor.clone() if decay else tensor for name, tensor in model.state_dict().items()}

    def update(self) -> None:
        """Take in the model after a step of the optimizer."""
        self.steps += 1
        if not self.decay:
            return
        decay = min(self.decay, self.steps / (self.steps + WARM_UP))
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1 - decay)
            else:
                self.state[name].copy_(tensor)
