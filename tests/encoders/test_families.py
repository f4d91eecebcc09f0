"""Families of open_clip's with ways of their own: SigLIP's tokenizer and bias; PE and MobileCLIP2 by name."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from trees import cifake_files, write_folder

from toolkit.data.sources import open_data
from toolkit.data.split import select
from toolkit.encoders import openclip
from toolkit.encoders.blocks import Blocks
from toolkit.encoders.source import source
from toolkit.errors import EncoderError
from toolkit.finetuning.recipes import Recipe
from toolkit.finetuning.training import finetune

PROMPTS = {"FAKE": ["a fake"], "REAL": ["a real one"]}
TINY = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "none"},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 128,
        "hf_tokenizer_name": "nobody/no-such-tokenizer",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 64,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
"""As open_clip's ViT-B-16-SigLIP, but small."""


class LetterTokenizer:
    """In place of a tokenizer from the hub: a token a letter."""

    @classmethod
    def from_pretrained(cls, name: str, **_: object) -> "LetterTokenizer":
        assert name == TINY["text_cfg"]["hf_tokenizer_name"]
        return cls()

    def __call__(self, texts: list[str], max_length: int, **_: object) -> types.SimpleNamespace:
        rows = [[ord(letter) % 128 for letter in text[:max_length]] for text in texts]
        return types.SimpleNamespace(input_ids=torch.tensor([row + [1] * (max_length - len(row)) for row in rows]))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small SigLIP that open_clip knows by name."""
    home = tmp_path_factory.mktemp("siglip")
    (home / "tiny-SigLIP.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(home / "tiny-SigLIP.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny-SigLIP").state_dict(), home / "weights.safetensors")
    return home / "weights.safetensors"


@pytest.fixture
def with_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("transformers")
    fake.AutoTokenizer = LetterTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", fake)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def load(weights: Path) -> openclip.OpenClip:
    return openclip.load(source("tiny-SigLIP", str(weights), device="cpu"))


def test_siglip_embeds_prompts_by_its_own_tokenizer(weights: Path, with_transformers: None) -> None:
    encoder = load(weights)
    model = open_clip.create_model("tiny-SigLIP", pretrained=str(weights))
    tokens = LetterTokenizer()(["a real one"], 16).input_ids
    with torch.no_grad():
        expected = model.eval().encode_text(tokens).numpy()
    assert np.allclose(encoder.embed_prompts(["a real one"]), expected, atol=1e-5)
    assert encoder.record.has_text and float(encoder.model.logit_bias.detach()) == -10


def test_siglip_is_fine_tuned_and_its_scale_and_bias_stay(
    weights: Path, with_transformers: None, tmp_path: Path
) -> None:
    """Among labels of which one is right, a bias that all share cancels, and the temperature is the recipe's."""
    dataset = open_data(write_folder(tmp_path / "data", cifake_files(3, 1)))
    encoder, recipe = load(weights), Recipe(epochs=2, batch_size=8, learning_rate=1e-3)
    before = {name: one.clone() for name, one in encoder.model.state_dict().items()}
    made = finetune(encoder, dataset, select(dataset, "cat", 8, 1).train, "cat", PROMPTS, recipe, tmp_path / "cache")
    after = encoder.model.state_dict()
    assert np.isfinite(made.record.losses).all()
    assert all(torch.equal(before[name], after[name]) for name in ("logit_scale", "logit_bias"))
    assert not torch.equal(before["text.token_embedding.weight"], after["text.token_embedding.weight"])


def test_blocks_without_a_class_token_are_means_over_the_picture(weights: Path, with_transformers: None) -> None:
    encoder = load(weights)
    encoder.model.visual.trunk.cls_token = None
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 160, 160), dtype=np.uint8)
    seen = []
    trunk = encoder.model.visual.trunk
    for block in trunk.blocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output.mean(dim=1)[0]))
    trunk.num_prefix_tokens, trunk.pos_embed = 0, torch.nn.Parameter(trunk.pos_embed[:, 1:])
    found = Blocks(encoder).embed_images(pixels)
    expected = torch.cat([one / one.norm() for one in seen[-len(trunk.blocks) :]]).detach().numpy()
    assert np.allclose(found[0], expected, atol=1e-5)


def test_without_transformers_a_line_says_what_to_install(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderError, match=r"needs transformers: pip install"):
        load(weights)


def test_without_a_network_a_line_says_that_the_tokenizer_is_missing(
    weights: Path, with_transformers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nand more lines")

    monkeypatch.setattr(LetterTokenizer, "from_pretrained", gone)
    with pytest.raises(EncoderError, match="tokenizer of tiny-SigLIP .* not on this machine") as caught:
        load(weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP2", "PE-Core-T-16-384", "PE-Core-B-16", "MobileCLIP2-S0"])
def test_open_clip_knows_the_name_and_the_weights_that_are_taken(name: str) -> None:
    assert name in open_clip.list_models()
    assert source(name).pretrained in open_clip.list_pretrained_tags_by_model(name)
