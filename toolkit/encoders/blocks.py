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
from toolkit.encoders.inside import Parts, blocks_of, in_order, parts_of
from toolkit.encoders.openclip import OpenClip
from toolkit.encoders.record import EncoderRecord, Sees

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
        self.prepare = encoder.prepare
        self._seen = threading.local()  # several threads may embed a batch each
        visual = encoder.model.visual
        blocks = blocks_of(visual, encoder.source.model)
        self._parts = parts_of(visual, sees, encoder.source.model)
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
            return vectors, in_order(of_blocks)
        seen = self._seen.parts = []
        try:
            vectors = self.encoder.embed_images(pixels, lambda token: seen.append(self._parts(token)))
        finally:
            del self._seen.parts
        return vectors, in_order(seen)

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


def _listener(seen: threading.local, parts: Parts) -> Any:
    """A hook that stores the parts of a block's output while this thread embeds with blocks."""

    def listen(_: Any, __: Any, output: "torch.Tensor") -> None:
        if hasattr(seen, "parts"):
            seen.parts.append(parts(output))

    return listen
