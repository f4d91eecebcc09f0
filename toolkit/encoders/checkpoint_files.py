"""Read checkpoint files: find the tensors inside common wrappers. Code in a file is never run."""

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import EncoderError

if TYPE_CHECKING:
    import torch

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.")
"""Prefixes that DistributedDataParallel and training frameworks add to every name."""
PREFIX = "visual."
"""The prefix of every name in an image tower."""
LABEL_VECTORS = "label_vectors"
"""The name of the labels' vectors among the weights of a fine-tuned image tower."""
COMPILED = "_orig_mod."
"""The part that `torch.compile` adds to names, anywhere in them."""
LOCAL_DIR = "local-dir:"
CONFIG = "open_clip_config.json"
WEIGHTS_IN_FOLDER = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""The file names that open_clip looks for in a model's folder, in order."""


def load_into(model: "torch.nn.Module", path: Path) -> "torch.nn.Module":
    """open_clip's `model` with the weights in `path`, converted as open_clip does.

    If the file holds only an image tower, an `ImageTower`, as a random text tower would be useless. Raises EncoderError
    if the file holds no weights, or NaN; open_clip's and torch's errors if the weights do not fit.
    """
    import open_clip

    if path.suffix in (".npz", ".npy"):  # big_vision's files: open_clip reads plain arrays
        open_clip.load_checkpoint(model, str(path))
        return model
    found, tensors = read_weights(path)
    if all(name.startswith(PREFIX) or name == LABEL_VECTORS for name in tensors):
        tower = image_tower(model)
        tower.load_state_dict({name: one for name, one in tensors.items() if name != LABEL_VECTORS})
        return tower
    with _as_open_clip_reads_it(path, found, tensors) as file:
        open_clip.load_checkpoint(model, str(file))
    return model


def read_weights(path: Path) -> "tuple[Any, dict[str, torch.Tensor]]":
    """The content of a file, and its tensors by plain names. Raises EncoderError if it holds no weights, or NaN."""
    _require_weights(path)
    found = _read(path)
    tensors = plain_names(unwrap(found))
    if not tensors:
        raise EncoderError(f"{path} holds no weights: its entries are {_some(found)}.")
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.isnan().any()]
    if broken:
        raise EncoderError(
            f"{path} has weights that are not numbers (NaN), {broken[0]} among {len(broken)} such tensors: its "
            "training went wrong. Take an earlier checkpoint."
        )
    return found, tensors


def image_tower(model: Any) -> "torch.nn.Module":
    """The image tower of an open_clip model, without its text tower."""
    from toolkit.encoders.image_tower import ImageTower

    return ImageTower(model.visual)


def unwrap(found: Any) -> Mapping[str, Any]:
    """The dict of tensors in a file's content: the content itself, or an entry named in `WRAPPERS`."""
    for name in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            return unwrap(found[name])
    return found if isinstance(found, Mapping) else {}


def plain_names(state: Mapping[str, Any]) -> "dict[str, torch.Tensor]":
    """The tensors of `state`, without prefixes common to all names and without torch.compile's parts."""
    import torch

    tensors = {str(name).replace(COMPILED, ""): one for name, one in state.items() if isinstance(one, torch.Tensor)}
    for prefix in PREFIXES * 2:  # either may come first
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): one for name, one in tensors.items()}
    return tensors


def local_dir(model: str) -> tuple[str, Path, Path]:
    """`local-dir:FOLDER` -> the same with an absolute path, the config file, and the weights file. Raises EncoderError
    if the folder is not as open_clip documents it.
    """
    folder = Path(model.removeprefix(LOCAL_DIR)).expanduser().resolve()
    needs = f"--model {LOCAL_DIR}FOLDER takes a folder with {CONFIG} and weights ({WEIGHTS_IN_FOLDER[0]})"
    if not folder.is_dir():
        raise EncoderError(f"There is no folder {folder}: {needs}.")
    try:
        whole = "model_cfg" in json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise EncoderError(f"Cannot read {folder / CONFIG} ({type(error).__name__}): {needs}.") from error
    if not whole:
        raise EncoderError(f"{folder / CONFIG} has no 'model_cfg': it is not a model's config of open_clip's.")
    files = [one for pattern in ("*.safetensors", "*.bin", "*.pth") for one in sorted(folder.glob(pattern))]
    if not files:
        raise EncoderError(f"{folder} has no weights (*.safetensors, *.bin, *.pth): {needs}.")
    preferred = [folder / name for name in WEIGHTS_IN_FOLDER if folder / name in files]
    return f"{LOCAL_DIR}{folder}", folder / CONFIG, [*preferred, *files][0]


def _require_weights(path: Path) -> None:
    """Raise EncoderError for files that are often mistaken for a checkpoint."""
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        raise EncoderError(f"{path} is empty: download it again.")
    if text.startswith(b"version https://git-lfs"):
        raise EncoderError(
            f"{path} is a Git LFS pointer, not the weights themselves: run git lfs pull in its repository."
        )
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise EncoderError(f"{path} is a web page, not weights: download the file itself.")
    if zipfile.is_zipfile(path) and _is_torchscript(path):
        raise EncoderError(
            f"{path} is a TorchScript archive, which holds code, and code is never run. OpenAI's own files are such "
            "archives: --pretrained openai gets the same weights as plain tensors."
        )


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())


def _read(path: Path) -> Any:
    if _is_safetensors(path):
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _is_safetensors(path: Path) -> bool:
    """Whether the bytes are safetensors, whatever the name: the header's length (8 bytes), then a JSON object."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


@contextmanager
def _as_open_clip_reads_it(path: Path, found: Any, tensors: "Mapping[str, torch.Tensor]") -> Iterator[Path]:
    """The file itself if open_clip reads the same tensors from it, else a temporary file with plain names."""
    import torch

    named_right = (path.suffix == ".safetensors") == _is_safetensors(path)
    if named_right and isinstance(found, Mapping) and list(found) == list(tensors):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "weights.pt"
        torch.save(dict(tensors), plain)
        yield plain


def _some(found: Any) -> str:
    names = list(found) if isinstance(found, Mapping) else [type(found).__name__]
    return ", ".join(map(str, names[:5])) or "none"
