"""The losses of fine-tuning. Each takes the similarities of a batch; which one it is, the recipe says."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolkit.encoders.openclip import OpenClip

if TYPE_CHECKING:
    from torch import Tensor


def contrastive(
    images: "Tensor", captions: "Tensor", which: "Tensor", temperature: float, labels: "Tensor"
) -> "Tensor":
    """The study's: the symmetric InfoNCE of CLIP (Radford et al. 2021, section 2.3, figure 3).

    Pair i's caption is the only right one for image i, though others in the batch read the same. It is also FLYP
    (Goyal et al. 2023, section 3): to fine-tune with the loss of pre-training.
    """
    import torch
    import torch.nn.functional as functional

    logits = images @ _of_each(captions, which).T / temperature
    target = torch.arange(len(images), device=images.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def supervised(images: "Tensor", captions: "Tensor", which: "Tensor", temperature: float, labels: "Tensor") -> "Tensor":
    """Every pair with the same label counts as right (UniCL, Yang et al. 2022, equations 2 to 4)."""
    import torch.nn.functional as functional

    logits = images @ _of_each(captions, which).T / temperature
    mine = labels[which]
    same = (mine[:, None] == mine[None, :]).to(logits.dtype)
    weights = same / same.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, weights) + functional.cross_entropy(logits.T, weights)) / 2


def prompts(images: "Tensor", captions: "Tensor", which: "Tensor", temperature: float, labels: "Tensor") -> "Tensor":
    """Cross-entropy over the prompts, one a label, which serve as a classifier whose weights the text tower makes.

    Goyal et al. 2023 set it beside FLYP, which itself is `contrastive`. Other images of the batch play no part.
    """
    import torch.nn.functional as functional

    return functional.cross_entropy(images @ captions.T / temperature, which)


Loss = Callable[["Tensor", "Tensor", "Tensor", float, "Tensor"], "Tensor"]
LOSSES: dict[str, Loss] = {"contrastive": contrastive, "supervised": supervised, "prompts": prompts}


def loss_of(
    name: str,
    images: "Tensor",
    captions: "Tensor",
    which: "Tensor",
    temperature: float,
    labels: "Tensor | None" = None,
) -> "Tensor":
    """The loss `name` of one batch.

    `images` `[B, D]` and `captions` `[U, D]` are unit vectors, `which` `[B]` int64 says which of the `U` distinct
    captions belongs to each image, `labels` `[U]` int64 which label each caption is of (None: each is a label of its
    own). Indexing the distinct captions gives the loss and the gradients of encoding all
    `B`, since equal captions have equal vectors and a sum of gradients is the gradient of the sum.
    """
    import torch

    labels = torch.arange(len(captions), device=which.device) if labels is None else labels
    return LOSSES[name](images, captions, which, temperature, labels)


def _of_each(captions: "Tensor", which: "Tensor") -> "Tensor":
    """`[U, D]` and `[B]` -> each image's caption `[B, D]`. A product with ones and zeros: its gradient is one, too,
    which is the same on every run, where an indexing's adds in any order on a GPU."""
    import torch.nn.functional as functional

    return functional.one_hot(which, len(captions)).to(captions.dtype) @ captions


def encode_captions(encoder: OpenClip, prompts: Sequence[str]) -> "Tensor":
    """The prompts' unit vectors `[P, D]`, with gradients; without a text tower, those of the labels of these names.

    Under a causal mask nothing behind the end-of-text token reaches the pooled vector, so the context is cut there.
    """
    import torch
    import torch.nn.functional as functional

    model = encoder.model
    if encoder.tokenizer is None:
        return functional.normalize(model.encode_labels(prompts), dim=-1)
    tokens = encoder.tokenizer(list(prompts)).to(encoder.device)
    tower = getattr(model, "text", model)
    if getattr(tower, "pool_type", getattr(tower, "text_pool_type", "")) != "argmax" or tower.attn_mask is None:
        return functional.normalize(model.encode_text(tokens), dim=-1)
    length = int(tokens.argmax(dim=1).max()) + 1
    prefix = "text." if tower is not model else ""
    shortened = {
        f"{prefix}positional_embedding": tower.positional_embedding[:length],
        f"{prefix}attn_mask": tower.attn_mask[:length, :length],
    }
    output = torch.func.functional_call(model, shortened, kwargs={"text": tokens[:, :length]})
    vectors = output["text_features"] if isinstance(output, dict) else output[1]
    return functional.normalize(vectors, dim=-1)
