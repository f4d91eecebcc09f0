"""The losses of fine-tuning, one of which a recipe names."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolkit.encoders.openclip import OpenClip

if TYPE_CHECKING:
    from torch import Tensor


def contrastive(
    images: "Tensor", captions: "Tensor", which: "Tensor", temperature: float, labels: "Tensor"
) -> "Tensor":
    """CLIP's symmetric InfoNCE, the study's loss (Radford et al. 2021, section 2.3, figure 3).

    The only positive of image i is its own caption, even if other captions in the batch are equal. Fine-tuning with the
    loss of pre-training is also called FLYP (Goyal et al. 2023, section 3).
    """
    import torch
    import torch.nn.functional as functional

    logits = images @ _of_each(captions, which).T / temperature
    target = torch.arange(len(images), device=images.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def supervised(images: "Tensor", captions: "Tensor", which: "Tensor", temperature: float, labels: "Tensor") -> "Tensor":
    """Contrastive loss in which all pairs with the same label are positives (UniCL, Yang et al. 2022, eq. 2-4)."""
    import torch.nn.functional as functional

    logits = images @ _of_each(captions, which).T / temperature
    mine = labels[which]
    same = (mine[:, None] == mine[None, :]).to(logits.dtype)
    weights = same / same.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, weights) + functional.cross_entropy(logits.T, weights)) / 2


def prompts(images: "Tensor", captions: "Tensor", which: "Tensor", temperature: float, labels: "Tensor") -> "Tensor":
    """Cross-entropy over the labels' prompts, one per label: the text tower computes the weights of a classifier.

    Goyal et al. 2023 compare it with FLYP, which is `contrastive`. Images of a batch do not affect each other's loss.
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

    `images` `[B, D]` and `captions` `[U, D]` are unit vectors, `which` `[B]` int64 is the number of each image's
    caption among the `U` distinct ones, `labels` `[U]` int64 the label number of each caption (None: each caption is a
    label of its own). Loss and gradients are the same as if all `B` captions were encoded, since equal captions have
    equal vectors and their gradients add up.
    """
    import torch

    labels = torch.arange(len(captions), device=which.device) if labels is None else labels
    return LOSSES[name](images, captions, which, temperature, labels)


def _of_each(captions: "Tensor", which: "Tensor") -> "Tensor":
    """`[U, D]` and `[B]` -> each image's caption `[B, D]`. It is a product with one-hot rows, whose gradient is
    deterministic; on a GPU the gradient of indexing is summed in random order."""
    import torch.nn.functional as functional

    return functional.one_hot(which, len(captions)).to(captions.dtype) @ captions


def encode_captions(encoder: OpenClip, prompts: Sequence[str]) -> "Tensor":
    """The prompts' unit vectors `[P, D]`, with gradients; without a text tower, the vectors of the labels so named.

    Under a causal mask, tokens after the end-of-text token do not affect the pooled vector, so they are cut off.
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
