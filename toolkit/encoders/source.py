"""The source of an encoder: from the user's model and weights to a typed value, without torch."""

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from toolkit.encoders import checkpoint_files, nano
from toolkit.encoders.default_weights import QUICK_GELU_TWINS, default_tag
from toolkit.encoders.record import EncoderRecord
from toolkit.errors import EncoderError

TIMM = "timm:"


@dataclass(frozen=True)
class Source:
    """The source of an encoder, known without importing torch.

    `pretrained` names the weights (an open_clip tag, or a checkpoint's file name); `file` is the local checkpoint, if
    any. `model` is a name of open_clip's, `timm:name`, or `hf-hub:owner/name` or `local-dir:folder`, which include
    weights. `notes` are lines for the user: which weights and which activation were chosen.
    """

    model: str
    pretrained: str = ""
    file: Path | None = None
    precision: str = "fp32"
    device: str = "auto"
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def config(self) -> str:
        """The hash of the config that a folder (`local-dir:`) brings; empty for other models."""
        return self.pretrained.rsplit("-", 1)[-1] if self.model.startswith(checkpoint_files.LOCAL_DIR) else ""

    @cached_property
    def called(self) -> str:
        """The model and its weights, as in `EncoderRecord.known_as`: a file by its SHA-256, not by its name."""
        weights = _sha256_of(self.file) if self.file else self.pretrained
        config = f" {self.pretrained}" if self.model.startswith(checkpoint_files.LOCAL_DIR) else ""
        return f"{self.model} {weights}{config}"

    def is_source_of(self, record: EncoderRecord) -> bool:
        """Whether `record` describes this encoder, so that a cache can be searched without loading a model."""
        return record.name == "base" and record.precision == self.precision and self.called in record.known_as


def source(model: str, pretrained: str | None = None, precision: str = "fp32", device: str = "auto") -> Source:
    """The source that `--model`, `--pretrained`, `--precision` and `--device` name.

    Raises EncoderError if `pretrained` names a file that does not exist.
    """
    made = Source(model=model, precision=precision, device=device)
    if model == "nano" and pretrained in (None, "shipped"):
        return replace(made, pretrained="shipped", file=nano.WEIGHTS)
    if model.startswith("hf-hub:"):
        return replace(made, pretrained="hub")
    if model.startswith(checkpoint_files.LOCAL_DIR):
        return _from_folder(made, pretrained)
    if model.startswith(TIMM):
        return _of_timm(made, pretrained)
    tag = pretrained or default_tag(model)
    if Path(tag).is_file():
        return _from_file(made, Path(tag))
    if os.sep in tag or tag.endswith((".pt", ".pth", ".bin", ".safetensors")):
        raise EncoderError(f"No checkpoint at {tag}: --pretrained takes a tag of open_clip's or the path of a file.")
    if pretrained or tag in ("", "openai"):
        return replace(made, pretrained=tag)
    note = f"Weights: {tag}, as OpenAI has none for {model}; --pretrained TAG takes others."
    return replace(made, pretrained=tag, notes=(note,))


def _from_file(made: Source, file: Path) -> Source:
    """The source of weights in a file. The file does not say which activation they need; OpenAI's, recognised by name,
    need QuickGELU."""
    found = replace(made, pretrained=file.stem, file=file.resolve())
    if made.model not in QUICK_GELU_TWINS:
        return found
    twin = f"{made.model}-quickgelu"
    if any("openai" in part.lower() for part in (file.name, *_hub_folder(file))):
        return replace(found, model=twin, notes=(f"Activation: QuickGELU ({twin}), as OpenAI's weights need it.",))
    note = f"Activation: GELU. Weights trained with QuickGELU (OpenAI's, MetaCLIP's, DFN's) need --model {twin}."
    return replace(found, notes=(note,))


def _of_timm(made: Source, pretrained: str | None) -> Source:
    """The source of a timm model. Its name includes the tag (`vit_small_patch14_dinov2.lvd142m`), on which
    preprocessing depends."""
    if pretrained and Path(pretrained).is_file():
        return replace(made, pretrained=Path(pretrained).stem, file=Path(pretrained).resolve())
    tag = made.model.partition(".")[2] or "default"
    if pretrained and pretrained != tag:
        raise EncoderError(
            f"No checkpoint at {pretrained}: for timm models, the tag is part of the name, timm:NAME.TAG."
        )
    return replace(made, pretrained=tag)


def _hub_folder(file: Path) -> list[str]:
    """The model's folder name, if the file is in the Hugging Face client's cache."""
    return [part for part in file.absolute().parts if part.startswith("models--")]


def _from_folder(made: Source, pretrained: str | None) -> Source:
    """The source `local-dir:FOLDER`. The config's hash is part of the name, since vectors depend on its settings."""
    model, config, weights = checkpoint_files.local_dir(made.model)
    if pretrained and Path(pretrained).resolve() != weights.resolve():
        raise EncoderError(f"{made.model} brings its own weights, {weights}: leave --pretrained out.")
    name = f"{weights.stem}-{_sha256_of(config)[:8]}"
    return replace(made, model=model, pretrained=name, file=weights.resolve())


def _sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex. Raises EncoderError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"Cannot read the checkpoint {path}: {error.strerror}.") from error
