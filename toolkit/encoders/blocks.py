"""The inside of an image tower as an encoder, for probes: its blocks, with or without their patches.

CLIP's last layer keeps what a caption describes and loses many traces of generators; earlier blocks keep more of them
(RINE: Koutlis & Papadopoulos 2024, section 3.2).
"""

import hashlib
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.encoders import half_precision
from toolkit.encoders.int8 import Parts
from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import EncoderRecord, Sees
from toolkit.errors import EncoderError, UnknownBlocks

if TYPE_CHECKING:
    import torch


class Blocks:
    """An `Encoder` of the inside of `encoder`'s image tower.

    An image's vector concatenates the class tokens of all blocks and, if it sees patches, the means of their patch
    tokens (where `class_token` computes only the last block's class token, of all blocks but that one). Each part has
    unit length: `[parts x D]` float32. For a tower without class token, a block's part is the mean over the image.

    Raises EncoderError for patches of a tower without class token.
    """

    def __init__(self, encoder: OpenClip, sees: str = Sees.BLOCKS):
        self.encoder = encoder
        self.batch_size, self.device = encoder.batch_size, encoder.device
        self.prepare, self.preprocess = encoder.prepare, encoder.preprocess
        self._seen = threading.local()  # several threads may embed a batch each
        visual = encoder.model.visual
        blocks = blocks_of(visual, encoder.source.model)
        self._parts = _parts_of(visual, sees, encoder.source.model)
        for block in blocks:
            block.register_forward_hook(_listener(self._seen, self._parts))
        encoder.half.forget()
        _, parts = self._embed(np.zeros((1, 3, *encoder.image_size), np.uint8))
        widths = tuple(part.shape[1] for part in parts)
        of = encoder.record
        name = f"{sees} {len(blocks)} {of.identity}"
        if of.precision in half_precision.PRECISIONS:  # earlier versions cached the last block alone under `name`
            name += f" {widths}"
        self.record = EncoderRecord(
            identity=hashlib.sha256(name.encode()).hexdigest()[:16],
            model=of.model,
            pretrained=of.pretrained,
            dimension=sum(widths),
            precision=of.precision,
            sees=sees,
            has_text=False,
            weights_sha256=of.weights_sha256,
            preprocessing=of.preprocessing,
            base_identity=of.identity,
            blocks=widths,
            trained_on=of.trained_on,
        )

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, 3, H, W]` uint8 from `prepare` -> `[N, parts x D]` float32."""
        return self.embed_both(pixels)[1]

    def embed_both(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[N, 3, H, W]` uint8 -> the vectors of `encoder` and those of its inside, in one pass through the tower."""
        import torch

        last_layer, parts = self._embed(pixels)
        units = [torch.nn.functional.normalize(part.float(), dim=1) for part in parts]
        return last_layer, np.asarray(torch.cat(units, dim=1).cpu().numpy())

    def _embed(self, pixels: np.ndarray) -> "tuple[np.ndarray, list[torch.Tensor]]":
        """The vectors of `encoder`, and the parts `[N, D]`: every block's first, then every block's second."""
        if self.encoder.int8:
            vectors, of_blocks = self.encoder.int8.with_blocks(self.encoder.pixels_to_input(pixels), self._parts)
            return vectors, _in_order(of_blocks)
        seen = self._seen.parts = []
        try:
            vectors = self.encoder.embed_images(pixels, lambda token: seen.append(self._parts(token)))
        finally:
            del self._seen.parts
        return vectors, _in_order(seen)

    def side_by_side(self) -> AbstractContextManager[Any]:
        """The same as `encoder`'s."""
        return self.encoder.side_by_side()

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Raises NotImplementedError: blocks are not in the space shared by images and texts."""
        raise NotImplementedError("blocks have no prompts")


class WithBlocks:
    """An encoder and its inside in one pass: an image's vector is the encoder's, followed by that of `blocks`."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.batch_size, self.device, self.prepare = blocks.batch_size, blocks.device, blocks.prepare
        self.side_by_side = blocks.side_by_side
        self.embed_prompts, self.record = blocks.encoder.embed_prompts, blocks.encoder.record

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, 3, H, W]` uint8 -> `[N, D + parts x D]` float32."""
        return np.concatenate(self.blocks.embed_both(pixels), axis=1)


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


def _parts_of(visual: Any, sees: str, name: str) -> Parts:
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


def _in_order(of_blocks: "list[list[torch.Tensor]]") -> "list[torch.Tensor]":
    """The first part of every block, then the second of those that have one."""
    most = max(map(len, of_blocks))
    return [parts[number] for number in range(most) for parts in of_blocks if number < len(parts)]


def _listener(seen: threading.local, parts: Parts) -> Any:
    """A hook that stores the parts of a block's output while this thread embeds with blocks."""

    def listen(_: Any, __: Any, output: "torch.Tensor") -> None:
        if hasattr(seen, "parts"):
            seen.parts.append(parts(output))

    return listen
