"""Computing the last block for the class token only changes no vector."""

import open_clip
import pytest
import torch

from toolkit.encoders.class_token import encode_image

VISION = {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8, "head_width": 16}


def model(**changes: object) -> open_clip.CLIP:
    """A small CLIP with random weights."""
    torch.manual_seed(0)
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    return open_clip.CLIP(embed_dim=16, vision_cfg={**VISION, **changes}, text_cfg=text)


IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
OTHERS = [
    {"pool_type": "avg"},
    {"attentional_pool": True},
    {"no_ln_pre": True},
    {"final_ln_after_pool": True},
    {"ls_init_value": 0.1},
    {"block_type": "custom"},
    {"layers": [1, 1, 1, 1]},
]


@pytest.mark.parametrize("changes", [{}, *OTHERS], ids=str)
def test_vectors_are_open_clips_own(changes: dict[str, object]) -> None:
    encoder = model(**changes).eval()
    with torch.inference_mode():
        assert torch.allclose(encode_image(encoder, IMAGES), encoder.encode_image(IMAGES), atol=1e-5)


def test_so_are_the_gradients() -> None:
    encoder = model().train()
    found = []
    for vectors in (encode_image(encoder, IMAGES), encoder.encode_image(IMAGES)):
        encoder.zero_grad()
        (vectors - 1).square().mean().backward()
        found.append({name: weight.grad.clone() for name, weight in encoder.visual.named_parameters()})
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[1])


def test_the_last_block_moves_the_class_token_alone() -> None:
    encoder, seen = model().eval(), []
    for block in encoder.visual.transformer.resblocks:
        block.mlp.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    encode_image(encoder, IMAGES)
    assert seen == [17, 17, 1]
