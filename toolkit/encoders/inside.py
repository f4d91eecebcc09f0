"""The inside of an image tower: where its blocks are, and what is kept of each one's output."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from toolkit.encoders.record import Sees
from toolkit.errors import EncoderError, UnknownBlocks

if TYPE_CHECKING:
    import torch

Parts = Callable[["torch.Tensor"], "list[torch.Tensor]"]
"""A block's output, tokens `[N, T, D]` or a map `[N, D, H, W]` -> what is kept of it, `[N, D]` each."""


def blocks_of(visual: Any, name: str) -> list[Any]:
    """The blocks of an open_clip image tower: those of a transformer, or the stages of a convolutional network.

    Raises UnknownBlocks for a tower that is neither.
    """
    trunk = getattr(visual, "trunk", None)
    known = getattr(trunk, "output_fmt", "NCHW") == "NCHW"  # timm's towers that have their channels last are not
    places = [(getattr(visual, "transformer", None), "resblocks")]
    places += [(trunk, part) for part in ("blocks", "stages", "layers")]
    for owner, part in places:
        if known and getattr(owner, part, None) is not None:
            return list(getattr(owner, part))
    if hasattr(visual, "layer1"):
        return [getattr(visual, f"layer{number}") for number in (1, 2, 3, 4)]
    raise UnknownBlocks(f"The blocks of {name}'s image tower are not known to the toolkit: take --features last.")


def parts_of(visual: Any, sees: str, name: str) -> Parts:
    """What is kept of each block's output. open_clip's own transformers have a class token; of timm's some, as
    SigLIP's, pool all tokens instead, or have registers before the patches. Raises EncoderError for patches of a tower
    without class token."""
    trunk = getattr(visual, "trunk", None)
    before_patches = int(hasattr(visual, "transformer")) if trunk is None else getattr(trunk, "num_prefix_tokens", 0)
    has_token = before_patches > 0 and (trunk is None or getattr(trunk, "cls_token", None) is not None)
    if sees == Sees.PATCHES and not has_token:
        raise EncoderError(
            f"{name}'s image tower has no class token: its blocks are means over the image already. "
            "Take --features blocks."
        )

    def parts(output: "torch.Tensor") -> "list[torch.Tensor]":
        if output.ndim == 4:  # a map `[N, D, H, W]`
            return [output.mean(dim=(2, 3))]
        patches = output[:, before_patches:]
        if not has_token:
            return [patches.mean(dim=1)]
        means = [patches.mean(dim=1)] if sees == Sees.PATCHES and patches.shape[1] else []
        return [output[:, 0], *means]

    return parts


def in_order(of_blocks: "list[list[torch.Tensor]]") -> "list[torch.Tensor]":
    """The first part of every block, then the second of those that have one."""
    most = max(map(len, of_blocks))
    return [parts[number] for number in range(most) for parts in of_blocks if number < len(parts)]
