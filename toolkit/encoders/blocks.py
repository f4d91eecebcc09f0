"""What the blocks inside an image tower see: a second encoder from the same model, for probes.

The last layer of CLIP keeps what a caption would say, and drops much of what a generator leaves behind; the blocks
before it keep more of that (RINE: Koutlis & Papadopoulos 2024, section 3.2).
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.encoders.openclip import Encoder, arithmetic
from toolkit.errors import EncoderError

if TYPE_CHECKING:
    import torch

KIND = "blocks"


class Blocks:
    """The manners of an encoder (`toolkit.cache.embedding.EncoderLike`) for the blocks of `encoder`'s image tower.

    An image's vector are the class tokens of all blocks (of a convolutional tower: their means over the picture), each
    of unit length, one behind the other: `[blocks x D]` float32.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.batch_size = encoder.batch_size
        self.prepare, self.preprocess = encoder.prepare, encoder.preprocess
        self.blocks = blocks_of(encoder.model.visual, encoder.source.model)
        size = encoder.image_size
        self.dimension = self.embed_images(np.zeros((1, 3, *size), np.uint8)).shape[1]
        self.record: dict[str, Any] = {
            **{name: encoder.record[name] for name in ("model", "pretrained", "weights_sha256", "precision")},
            "kind": KIND,
            "base_identity": encoder.identity,
            "dimension": self.dimension,
            "identity": hashlib.sha256(f"{KIND} {len(self.blocks)} {encoder.identity}".encode()).hexdigest()[:16],
        }

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, 3, H, W]` uint8 from `prepare` -> `[N, blocks x D]` float32."""
        import torch

        seen: list[torch.Tensor] = []
        hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in self.blocks]
        try:
            with torch.inference_mode(), arithmetic(self.encoder.device, self.encoder.source.precision):
                self.encoder.model.encode_image(self.encoder.pixels_to_input(pixels))
            tokens = [torch.nn.functional.normalize(_token(one).float(), dim=1) for one in seen]
        finally:
            for hook in hooks:
                hook.remove()
        return np.asarray(torch.cat(tokens, dim=1).cpu().numpy())

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Blocks lie before the space that images and texts share: raises NotImplementedError."""
        raise NotImplementedError("blocks have no prompts")


def blocks_of(visual: Any, name: str) -> list[Any]:
    """The blocks of an image tower of open_clip's: a transformer's, or the stages of a convolutional one.

    Raises EncoderError for a tower that is neither.
    """
    trunk = getattr(visual, "trunk", None)
    places = [(getattr(visual, "transformer", None), "resblocks")]
    places += [(trunk, part) for part in ("blocks", "stages", "layers")]
    for owner, part in places:
        if getattr(owner, part, None) is not None:
            return list(getattr(owner, part))
    if hasattr(visual, "layer1"):
        return [getattr(visual, f"layer{number}") for number in (1, 2, 3, 4)]
    raise EncoderError(f"The blocks of {name}'s image tower are not known to the toolkit: leave --features out.")


def _token(output: "torch.Tensor") -> "torch.Tensor":
    """A block's output -> `[N, D]`: of tokens `[N, T, D]` the first, of a map `[N, D, H, W]` the mean."""
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output[:, 0]
