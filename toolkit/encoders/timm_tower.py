"""Image towers from timm, without text: DINOv2, DINOv3, ViT and all other models of timm."""

import difflib
import sys
from typing import TYPE_CHECKING, Any

from toolkit.encoders import checkpoint_files
from toolkit.encoders.source import TIMM, Source
from toolkit.errors import EncoderError

if TYPE_CHECKING:
    import torch


def create(origin: Source, load_weights: bool) -> "torch.nn.Module":
    """The tower of `timm:NAME` or `timm:NAME.TAG`, without its classifier, with or without its weights.

    Its vectors are timm's pooled features, for most ViTs the class token. Raises EncoderError for an unknown name, and
    timm's and torch's errors if weights do not fit.
    """
    import timm

    from toolkit.encoders.image_tower import ImageTower

    name = origin.model.removeprefix(TIMM)
    _check_name(name, needs_weights=load_weights and origin.file is None)
    trunk = timm.create_model(name, pretrained=load_weights and origin.file is None, num_classes=0)
    if load_weights and origin.file:
        _load_into(trunk, checkpoint_files.read_weights(origin.file)[1])
    return ImageTower(_visual(trunk))


def steps_to_pixels(preprocessing: dict[str, Any]) -> Any:
    """timm's resize and crop, without its last two steps (convert to a tensor, normalise)."""
    from timm.data import create_transform
    from torchvision.transforms import Compose

    asked = {name: preprocessing[name] for name in ("interpolation", "crop_pct", "crop_mode", "mean", "std")}
    whole = create_transform(input_size=(3, *preprocessing["size"]), is_training=False, **asked)
    return Compose(whole.transforms[:-2])


def _load_into(trunk: Any, tensors: "dict[str, torch.Tensor]") -> None:
    """Load weights from a file as timm does: the original authors' tensor names are converted and a classifier is left
    out. Unlike timm, raise an error if tensors are missing."""
    from timm.models import model_entrypoint

    family = sys.modules[model_entrypoint(trunk.pretrained_cfg["architecture"]).__module__]
    as_timm_names_them = getattr(family, "checkpoint_filter_fn", lambda state, _: state)
    found = as_timm_names_them(tensors, trunk)
    named = trunk.pretrained_cfg.get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))
    own = trunk.state_dict()
    trunk.load_state_dict({name: one for name, one in found.items() if name in own or not name.startswith(classifiers)})


def _visual(trunk: Any) -> Any:
    """The tower in open_clip's form: a module with a `trunk` and its preprocessing."""
    import torch
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(trunk)
    visual = torch.nn.Sequential()
    visual.add_module("trunk", trunk)
    kept = {name: config[name] for name in ("interpolation", "crop_pct", "crop_mode", "mean", "std")}
    visual.preprocess_cfg = {"size": tuple(config["input_size"][1:]), **kept}  # type: ignore[assignment]
    return visual


def _check_name(name: str, needs_weights: bool) -> None:
    import timm

    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        near = difflib.get_close_matches(plain, timm.list_models(), n=3, cutoff=0.5)
        guess = f" Did you mean {', '.join(near)}?" if near else ""
        raise EncoderError(f"timm knows no model {plain!r}.{guess}")
    known = [one.partition(".")[2] for one in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in known:
        raise EncoderError(f"{TIMM}{plain} has no weights {tag!r}: known tags are {', '.join(known) or 'none'}.")
    if needs_weights and not known:
        raise EncoderError(f"timm publishes no weights of {plain}: give a file of your own, --pretrained FILE.")
