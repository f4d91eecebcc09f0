"""The blocks of an image tower as an encoder, for probes.

CLIP's last layer keeps what a caption describes and loses many traces of generators; earlier blocks keep more of them
(RINE: Koutlis & Papadopoulos 2024, section 3.2).
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import EncoderRecord, Sees
from toolkit.errors import EncoderError

if TYPE_CHECKING:
    import torch


class Blocks:
    """An `Encoder` of the blocks of `encoder`'s image tower.

    An image's vector concatenates the class tokens of all blocks, each scaled to unit length: `[blocks x D]` float32.
    For a tower without class token it is their mean over the image.
    """

    def __init__(self, encoder: OpenClip):
        self.encoder = encoder
        self.batch_size, self.device = encoder.batch_size, encoder.device
        self.prepare, self.preprocess = encoder.prepare, encoder.preprocess
        self._seen = threading.local()  # several threads may embed a batch each
        visual = encoder.model.visual
        blocks = blocks_of(visual, encoder.source.model)
        self._token = _token if _has_class_token(visual) else _mean
        for block in blocks:
            block.register_forward_hook(_listener(self._seen, self._token))
        _, tokens = self._embed(np.zeros((1, 3, *encoder.image_size), np.uint8))
        widths = tuple(token.shape[1] for token in tokens)
        of = encoder.record
        self.record = EncoderRecord(
            identity=hashlib.sha256(f"{Sees.BLOCKS} {len(blocks)} {of.identity}".encode()).hexdigest()[:16],
            model=of.model,
            pretrained=of.pretrained,
            dimension=sum(widths),
            precision=of.precision,
            sees=Sees.BLOCKS,
            has_text=False,
            weights_sha256=of.weights_sha256,
            preprocessing=of.preprocessing,
            base_identity=of.identity,
            blocks=widths,
            trained_on=of.trained_on,
        )

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, 3, H, W]` uint8 from `prepare` -> `[N, blocks x D]` float32."""
        return self.embed_both(pixels)[1]

    def embed_both(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[N, 3, H, W]` uint8 -> the vectors of `encoder` and those of the blocks, in one pass through the tower."""
        import torch

        last_layer, tokens = self._embed(pixels)
        units = [torch.nn.functional.normalize(token.float(), dim=1) for token in tokens]
        return last_layer, np.asarray(torch.cat(units, dim=1).cpu().numpy())

    def _embed(self, pixels: np.ndarray) -> "tuple[np.ndarray, list[torch.Tensor]]":
        """The vectors of `encoder`, and each block's tokens `[N, D]`."""
        tokens = self._seen.tokens = []
        try:
            return self.encoder.embed_images(pixels, lambda token: tokens.append(self._token(token))), tokens
        finally:
            del self._seen.tokens

    def side_by_side(self) -> AbstractContextManager[Any]:
        """The same as `encoder`'s."""
        return self.encoder.side_by_side()

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Raises NotImplementedError: blocks are not in the space shared by images and texts."""
        raise NotImplementedError("blocks have no prompts")


class WithBlocks:
    """An encoder and its blocks in one pass: an image's vector is the encoder's, followed by that of the blocks."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.batch_size, self.device, self.prepare = blocks.batch_size, blocks.device, blocks.prepare
        self.side_by_side = blocks.side_by_side
        self.embed_prompts, self.record = blocks.encoder.embed_prompts, blocks.encoder.record

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, 3, H, W]` uint8 -> `[N, D + blocks x D]` float32."""
        return np.concatenate(self.blocks.embed_both(pixels), axis=1)


def blocks_of(visual: Any, name: str) -> list[Any]:
    """The blocks of an open_clip image tower: those of a transformer, or the stages of a convolutional network.

    Raises EncoderError for a tower that is neither.
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
    raise EncoderError(f"The blocks of {name}'s image tower are not known to the toolkit: leave --features out.")


def _has_class_token(visual: Any) -> bool:
    """open_clip's own transformers have one; of timm's some, as SigLIP's, pool all tokens instead."""
    trunk = getattr(visual, "trunk", None)
    return trunk is None or getattr(trunk, "cls_token", None) is not None


def _listener(seen: threading.local, token: Callable[["torch.Tensor"], "torch.Tensor"]) -> Any:
    """A hook that stores a block's tokens while this thread embeds with blocks."""

    def listen(_: Any, __: Any, output: "torch.Tensor") -> None:
        if hasattr(seen, "tokens"):
            seen.tokens.append(token(output))

    return listen


def _token(output: "torch.Tensor") -> "torch.Tensor":
    """A block's output -> `[N, D]`: of tokens `[N, T, D]` the first, of a map `[N, D, H, W]` the mean."""
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output[:, 0]


def _mean(output: "torch.Tensor") -> "torch.Tensor":
    """A block's output `[N, T, D]` or `[N, D, H, W]` -> `[N, D]`, the mean over the picture."""
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output.mean(dim=1)
