"""Load a CLIP from open_clip or an image tower from timm, and embed images and prompts with it."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from toolkit.data.images import decode
from toolkit.encoders import half_precision, timm_tower
from toolkit.encoders.class_token import encode_image
from toolkit.encoders.create import create, tokenizer_of
from toolkit.encoders.int8 import Int8Tower
from toolkit.encoders.record import EncoderRecord, TrainedOn
from toolkit.encoders.source import Source, source
from toolkit.errors import EncoderError

if TYPE_CHECKING:
    import torch

MOST_SIDE_BY_SIDE = 4
"""At most this many batches at once, since each needs memory for its activations."""

log = logging.getLogger(__name__)

__all__ = ["OpenClip", "Source", "arithmetic", "load", "products", "source"]


class OpenClip:
    """An `Encoder`: a CLIP loaded through open_clip, by `load` or from a checkpoint of `finetuning.checkpoints`.

    `record` describes it in caches and tables. `identity` is a hash over its weights, preprocessing and precision, so
    that vectors of different encoders are never confused.
    """

    def __init__(self, model: Any, origin: Source, trained_on: TrainedOn | None = None):
        import torch

        self.model: Any = model.eval()  # open_clip has no types
        self.source = origin
        self.device = pick_device(origin.device, origin.precision)
        # Convolutions are up to twice as fast with channels last; vectors are equal to 1e-6.
        self.model.to(self.device, memory_format=torch.channels_last)
        self.has_text = hasattr(model, "encode_text")
        self.tokenizer = tokenizer_of(origin) if self.has_text else None
        self.preprocessing = dict(model.visual.preprocess_cfg)
        self._steps = _steps_to_pixels(self.preprocessing)
        self.batch_size = 256 if self.device == "cuda" else 64 if self.image_size[0] <= 64 else 32
        self.half = half_precision.HalfWeights(model)
        self.int8 = Int8Tower(self.model, self.image_size) if origin.precision == "int8" else None
        self.record = self._describe(trained_on)
        self.identity, self.dimension = self.record.identity, self.record.dimension

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the image tower's input."""
        size = self.preprocessing["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def _describe(self, trained_on: TrainedOn | None) -> EncoderRecord:
        weights = weights_sha256(self.model)
        preprocessing = json.loads(json.dumps(self.preprocessing))
        parts = [weights, kinds_of_layers(self.model), preprocessing, self.source.precision]
        parts += [trained_on.choice] if trained_on and trained_on.choice else []  # equal weights, another calibration
        parts += [self.source.config] if self.source.config else []  # of equal weights, another number of heads
        return EncoderRecord(
            identity=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16],
            model=self.source.model,
            pretrained=self.source.pretrained,
            dimension=self._dimension(),
            precision=self.source.precision,
            has_text=self.has_text,
            weights_sha256=weights,
            preprocessing=preprocessing,
            known_as=() if trained_on else (self.source.called,),
            trained_on=trained_on,
        )

    def _dimension(self) -> int:
        if self.has_text:
            return int(self.embed_prompts(["a"]).shape[1])
        return int(self.embed_images(np.zeros((1, 3, *self.image_size), np.uint8)).shape[1])

    def prepare(self, data: bytes) -> np.ndarray:
        """An image file's bytes -> `[3, H, W]` uint8 for `embed_images`. Raises ImageError."""
        return self.preprocess(decode(data))

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """One RGB image -> `[3, H, W]` uint8, resized and cropped as its library does. Safe in several threads."""
        if image.size != self.image_size[::-1] or self.preprocessing.get("crop_pct", 1.0) < 1:
            image = self._steps(image)
        return np.asarray(image).transpose(2, 0, 1)

    def pixels_to_input(self, pixels: np.ndarray) -> "torch.Tensor":
        """`[N, 3, H, W]` uint8 -> float32 on the device, normalised with the model's mean and deviation."""
        import torch

        # `preprocess` leaves channels last in memory, and so they stay: to reorder them takes as long as to stack them.
        plain = pixels.flags.writeable and min(pixels.strides) >= 0  # what torch takes as it is
        batch = torch.from_numpy(pixels if plain else pixels.copy(order="K"))
        if self.device == "cuda":
            batch = batch.pin_memory()  # the GPU reads pinned memory directly; otherwise the driver copies once more
        batch = batch.to(self.device, non_blocking=True)
        mean = torch.tensor(self.preprocessing["mean"], device=self.device).view(1, 3, 1, 1)
        deviation = torch.tensor(self.preprocessing["std"], device=self.device).view(1, 3, 1, 1)
        return (batch.float() / 255 - mean) / deviation

    def _to_embed_with(self) -> Any:
        """The model; on a CPU in half precision, its copy with weights already cast."""
        halved = self.device == "cpu" and self.source.precision in half_precision.PRECISIONS
        return self.half(self.source.precision) if halved else self.model

    def embed_images(self, pixels: np.ndarray, last_block: Callable[[Any], None] | None = None) -> np.ndarray:
        """`[N, 3, H, W]` uint8 from `preprocess` -> `[N, D]` float32: projected, not normalised.

        `last_block` is for `encoders.blocks` (see `class_token.encode_image`).
        """
        import torch

        if self.int8:
            return self.int8.vectors(self.pixels_to_input(pixels))
        with torch.inference_mode(), arithmetic(self.device, self.source.precision):
            vectors = encode_image(self._to_embed_with(), self.pixels_to_input(pixels), last_block)
        return np.asarray(vectors.float().cpu().numpy())

    @contextmanager
    def side_by_side(self) -> Iterator[tuple[int, ThreadPoolExecutor]]:
        """The number of batches to embed at once, and a pool of threads for them, which share torch's threads. Wait for
        every batch before leaving the block.

        On a CPU, two batches on one core each are faster than one after the other on both cores (nano by 10 %, ViT-B/32
        by 3 %), and a core that is busy reading images delays only one of them.
        """
        import torch

        cores = torch.get_num_threads()
        most = cores if self.int8 else MOST_SIDE_BY_SIDE  # a batch in int8 is computed on one core
        count = min(cores, most) if self.device == "cpu" else 1
        share = cores // count
        torch.set_num_threads(share)
        try:
            yield count, _threads(count, share, torch.cuda.current_device() if self.device == "cuda" else None)
        finally:
            torch.set_num_threads(cores)

    def embed_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """`P` prompts -> `[P, D]` float32: projected, not normalised.

        For an image tower, `prompts` are labels, and the result is their label vectors; raises NotImplementedError for
        a label without one.
        """
        import torch

        if self.tokenizer is None:
            return np.array(self.model.encode_labels(prompts).detach().float().cpu().numpy())
        with torch.inference_mode(), arithmetic(self.device, self.source.precision):
            vectors = self._to_embed_with().encode_text(self.tokenizer(list(prompts)).to(self.device))
        return np.asarray(vectors.float().cpu().numpy())


@functools.cache
def _threads(count: int, share: int, gpu: int | None) -> ThreadPoolExecutor:
    """`count` threads with `share` of torch's threads each, on the GPU that this process has. They stay for the life of
    the process: what a model takes from the system in a thread's name is not given back when the thread ends (25 MB in
    8,192 images with nano)."""
    import torch

    def begin() -> None:
        torch.set_num_threads(share)
        if gpu is not None:
            torch.cuda.set_device(gpu)  # each thread has a current GPU of its own

    return ThreadPoolExecutor(count, initializer=begin)


def load(origin: Source) -> OpenClip:
    """Load a base encoder through open_clip.

    Raises EncoderError for an unknown model or tag, weights that are neither on this machine nor downloadable, and a
    checkpoint that does not fit or that contains more than tensors (pickled code is never run).
    """
    encoder = OpenClip(create(origin, load_weights=True), origin)
    about = (origin.model, origin.file or origin.pretrained, encoder.identity, encoder.device, origin.precision)
    log.info("loaded %s with weights %s: encoder %s on %s in %s", *about)
    return encoder


def pick_device(name: str, precision: str = "fp32") -> str:
    """`auto` -> the first available of CUDA, MPS (Apple) and CPU; for int8 the CPU.

    Raises EncoderError for an unavailable device, and for int8 on a GPU.
    """
    import torch

    if precision == "int8":
        if name not in ("auto", "cpu"):
            raise EncoderError(f"int8 is for processors: say --device cpu, or another --precision on {name}.")
        return "cpu"

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, available in here.items() if available)
    if not here[name]:
        raise EncoderError(f"There is no {name} device on this machine: leave --device out, or say --device cpu.")
    return name


@contextmanager
def arithmetic(device: str, precision: str) -> Iterator[None]:
    """Compute in `precision` (float32, TensorFloat-32, or autocast to bfloat16 or float16) inside the block.

    A backward pass needs `products` alone, since it has autocast's types from its forward pass."""
    import torch

    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with products(precision), torch.autocast(device, dtype=half) if half else nullcontext():
        yield


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Multiply float32 matrices on a GPU in TensorFloat-32 inside the block if `precision` is tf32, else in float32."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def weights_sha256(model: "torch.nn.Module") -> str:
    """A hash over every tensor's name, shape, type and bytes; it does not depend on the file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue  # a counter of training steps that does not affect vectors and that old files lack
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def kinds_of_layers(model: "torch.nn.Module") -> list[str]:
    """The names of the model's layer classes, since models with equal weights may differ in their activation."""
    return sorted({type(module).__name__ for module in model.modules()})


def _steps_to_pixels(preprocessing: dict[str, Any]) -> Any:
    """The library's resize and crop, without its last two steps (convert to a tensor, normalise)."""
    if "crop_pct" in preprocessing:
        return timm_tower.steps_to_pixels(preprocessing)
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose

    whole = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
    return Compose(whole.transforms[:-2])
