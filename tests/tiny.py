"""A CLIP of two small transformers, without batch norm and with random weights: it is fine-tuned in milliseconds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.encoders.openclip import OpenClip, Source

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def tiny_source(root: Path) -> "Source":
    """Where to load it from; its files are written to `root` once, always with the same weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from toolkit.encoders import openclip

    if not (root / "tiny-vit.json").exists():
        (root / "tiny-vit.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(root / "tiny-vit.json")
    if not (root / "tiny.safetensors").exists():
        torch.manual_seed(0)
        save_file(open_clip.create_model("tiny-vit").state_dict(), root / "tiny.safetensors")
    return openclip.source("tiny-vit", str(root / "tiny.safetensors"), device="cpu")


def tiny_clip(root: Path) -> "OpenClip":
    """A fresh one."""
    from toolkit.encoders import openclip

    return openclip.load(tiny_source(root))
