"""nano: the CLIP that ships with the toolkit (see `MODEL_CARD.md` beside this file)."""

from pathlib import Path

HERE = Path(__file__).parent
CONFIG = HERE / "nano.json"
WEIGHTS = HERE / "nano.safetensors"


def register() -> None:
    """Teach open_clip the architecture `nano`. Calling it again changes nothing."""
    import open_clip

    from toolkit.encoders.nano import trunk  # noqa: F401  (registers `toolkit_nano` with timm)

    if "nano" not in open_clip.list_models():
        open_clip.add_model_config(CONFIG)
