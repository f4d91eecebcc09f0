"""Create the models of open_clip and timm, with errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from toolkit.encoders import checkpoint_files, nano, timm_tower
from toolkit.encoders.source import TIMM, Source
from toolkit.errors import EncoderError, did_you_mean, first_line
from toolkit.storage.network import fail_fast_without_network, quiet_client

if TYPE_CHECKING:
    import torch


def create(origin: Source, load_weights: bool) -> "torch.nn.Module":
    """The model of `origin`, with its weights, or without them if a checkpoint will be loaded into it."""
    if load_weights and origin.file is None:
        fail_fast_without_network()
    if origin.model.startswith(TIMM):
        with quiet_client(), _readable_errors(origin):
            return timm_tower.create(origin, load_weights)
    import open_clip

    nano.register()
    brings_its_own = origin.model.startswith(("hf-hub:", checkpoint_files.LOCAL_DIR))
    if not brings_its_own:
        _check_names(origin)
    from_tag = None if brings_its_own or origin.file else origin.pretrained
    quick_gelu = open_clip.get_pretrained_cfg(origin.model, from_tag or "").get("quick_gelu", False)
    options: dict[str, Any] = {"force_quick_gelu": True} if quick_gelu else {}
    from_file = origin.file if load_weights else None
    downloads = load_weights and not from_file
    with quiet_client(), _readable_errors(origin):
        model = open_clip.create_model(
            origin.model,
            pretrained=from_tag,
            load_weights=downloads,
            require_pretrained=downloads,
            pretrained_text=False,
            **options,
        )
        if from_file:
            model = checkpoint_files.load_into(model, from_file)
    return model


def tokenizer_of(origin: Source) -> Any:
    """The model's tokenizer. Those of SigLIP and some other models come from the hub and need transformers."""
    import open_clip

    config = open_clip.get_model_config(origin.model) or {}
    name = config.get("text_cfg", {}).get("hf_tokenizer_name", "")
    if name:
        fail_fast_without_network()
    try:
        with quiet_client():
            return open_clip.get_tokenizer(origin.model)
    except ImportError as error:
        raise EncoderError(f'The tokenizer of {origin.model} needs {error.name}: pip install -e ".[siglip]"') from error
    except Exception as error:  # whatever the hub's client and transformers raise
        raise EncoderError(
            f"The tokenizer of {origin.model} ({name or 'from the hub'}) is not on this machine and cannot be "
            "downloaded (no network?): run once with a network."
        ) from error


def _check_names(origin: Source) -> None:
    import difflib

    import open_clip

    models = open_clip.list_models()
    if origin.model not in models:
        near = difflib.get_close_matches(origin.model, models, n=3, cutoff=0.5) or ["nano", "ViT-B-32", "ViT-L-14"]
        raise EncoderError(f"open_clip knows no model {origin.model!r}. Did you mean {', '.join(near)}?")
    tags = open_clip.list_pretrained_tags_by_model(origin.model)
    if origin.file is None and origin.pretrained not in tags:
        known = f"known tags: {', '.join(tags)}" if tags else "it has no tags"
        guess = did_you_mean(origin.pretrained, tags)
        raise EncoderError(
            f"{origin.model} has no weights {origin.pretrained!r} ({known}).{guess} Say --pretrained TAG or FILE."
            if origin.pretrained
            else f"open_clip publishes no weights of {origin.model}: give a file of your own, --pretrained FILE."
        )


@contextmanager
def _readable_errors(origin: Source) -> Iterator[None]:
    name = f"{origin.model} ({origin.pretrained})"
    try:
        yield
    except EncoderError:
        raise
    except Exception as error:  # whatever open_clip, torch, safetensors and the hub's client raise
        if origin.file is None:
            raise EncoderError(
                f"The weights of {name} are not on this machine and cannot be downloaded (no network?): run once "
                f"with a network, or give a local file, --pretrained FILE, or take the model that ships: --model nano."
            ) from error
        raise EncoderError(f"{origin.file} does not load as {origin.model}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    if "Weights only load failed" in text or "weights_only" in text or "TorchScript" in text:
        return "it holds more than tensors, and code is never run. Save its state_dict as safetensors instead."
    kinds = [kind for kind in ("Missing key", "Unexpected key", "size mismatch", "width changed") if kind in text]
    if kinds:
        return f"its tensors are another model's ({', '.join(kinds).lower()}). Name the model it was made for: --model."
    return f"{type(error).__name__}: {first_line(error)}."
