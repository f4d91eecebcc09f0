"""Train nano, the CLIP that ships with the toolkit, from scratch on CIFAR-10's train images.

    python scripts/train_nano.py CIFAR10_FOLDER toolkit/encoders/nano/nano.safetensors

CIFAR10_FOLDER holds `train/<class>/*.jpg` and `test/<class>/*.jpg`; the test images are only ever scored. Half an
hour on two idle cores with bfloat16 instructions. The recipe and the figures stand in
`toolkit/encoders/nano/MODEL_CARD.md`.
"""

import math
import random
import time
from pathlib import Path

import click
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from toolkit.encoders import nano

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# What was done to a picture is said in its caption, so that nano learns to see such traces and to read of them.
LOOKS = ["", "blurry", "noisy", "sharpened", "compressed"]
TEMPLATES = [
    "a photo of a {}.",
    "a {} photo of a {}.",
    "an image of a {}.",
    "a {} image of a {}.",
    "This is a photo of a {}.",
    "This is a {} picture of a {}.",
    "a picture of the {}.",
    "the {}.",
    "a small photo of a {}.",
    "{}",
]
ZERO_SHOT_TEMPLATES = ["a photo of a {}.", "an image of a {}.", "a picture of the {}."]


def load(folder: Path) -> tuple[Tensor, Tensor]:
    """`<class>/*.jpg` below `folder` -> images `[N, 3, 32, 32]` uint8 and class numbers `[N]` int64."""
    images, classes = [], []
    for number, name in enumerate(CLASSES):
        for path in sorted((folder / name).glob("*.jpg")):
            images.append(np.asarray(Image.open(path).convert("RGB")))
            classes.append(number)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(classes)


def normalise(images: Tensor) -> Tensor:
    """`[B, 3, H, W]` in 0..255 -> float32 as open_clip's own preprocessing leaves it."""
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1)
    return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def shift_and_flip(images: Tensor) -> Tensor:
    """Random shifts by up to four pixels and random mirroring, `[B, 3, 32, 32]` float32 in and out."""
    count = len(images)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    rows = torch.randint(0, 9, (count, 1)) + torch.arange(32)
    columns = torch.randint(0, 9, (count, 1)) + torch.arange(32)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    batch = torch.arange(count)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def blur(images: Tensor) -> Tensor:
    sigma = random.uniform(0.5, 1.2)
    line = torch.exp(-(torch.arange(-2, 3) ** 2) / (2 * sigma**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel.expand(3, 1, 5, 5), groups=3)


def compress(images: Tensor) -> Tensor:
    """Quantise the 8x8 cosine transform, as JPEG does, more coarsely the higher the frequency."""
    n = torch.arange(8)
    basis = torch.cos((2 * n[None] + 1) * n[:, None] * math.pi / 16) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    step = (4 + 4 * (n[:, None] + n[None])) * random.uniform(1.5, 4)
    blocks = images.unfold(2, 8, 8).unfold(3, 8, 8)
    quantised = torch.round(basis @ (blocks - 128) @ basis.T / step) * step
    restored = basis.T @ quantised @ basis + 128
    return restored.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


def change_looks(images: Tensor, looks: Tensor) -> Tensor:
    """Give each image the look (an index into `LOOKS`, `[B]`) that its caption will name."""
    images = images.clone()
    for number, name in enumerate(LOOKS):
        chosen = looks == number
        if not name or not chosen.any():
            continue
        part = images[chosen]
        if name == "blurry":
            part = blur(part)
        elif name == "noisy":
            part = part + torch.randn_like(part) * random.uniform(5, 16)
        elif name == "sharpened":
            part = part + random.uniform(0.7, 2) * (part - blur(part))
        else:
            part = compress(part)
        images[chosen] = part.round().clamp(0, 255)
    return images


def caption(class_number: int, look: int) -> str:
    """A random template filled with the class and, where there is one, the look."""
    template = random.choice([t for t in TEMPLATES if t.count("{}") == (2 if look else 1)])
    return template.format(*([LOOKS[look]] if look else []), CLASSES[class_number])


def contrastive_loss(images: Tensor, texts: Tensor, kinds: Tensor, scale: Tensor) -> Tensor:
    """Symmetric, every pair of one kind a positive (UniCL, Yang et al. 2022, section 3.2).

    images `[B, D]` and texts `[K, D]`, normalised; kinds `[B]` int64, the row of `texts` that describes an image.
    """
    logits = scale * images @ texts.T
    to_text = F.cross_entropy(logits, kinds)
    positives = F.one_hot(kinds, len(texts)).float()
    to_image = -(positives.T * F.log_softmax(logits.T, dim=1)).sum(1) / positives.sum(0)
    return (to_text + to_image.mean()) / 2


@torch.inference_mode()
def zero_shot_accuracy(model: torch.nn.Module, tokenizer, images: Tensor, classes: Tensor) -> float:
    """Share of images whose nearest class caption (mean of the templates) is their own."""
    model.eval()
    texts = [model.encode_text(tokenizer([t.format(c) for t in ZERO_SHOT_TEMPLATES]), True).mean(0) for c in CLASSES]
    text = F.normalize(torch.stack(texts), dim=1)
    found = [(model.encode_image(normalise(part), True) @ text.T).argmax(1) for part in images.split(500)]
    model.train()
    return (torch.cat(found) == classes).float().mean().item()


@click.command(help=__doc__)
@click.argument("cifar10", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--epochs", default=16, show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--lr", default=2e-3, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(cifar10: Path, out: Path, epochs: int, batch_size: int, lr: float, seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)
    nano.register()
    model = open_clip.create_model("nano").to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer("nano")
    images, classes = load(cifar10 / "train")
    test_images, test_classes = load(cifar10 / "test")
    steps = epochs * (len(images) // batch_size)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15, div_factor=10)
    started = time.time()
    for step in range(steps):
        if step % (len(images) // batch_size) == 0:
            order = torch.randperm(len(images)).split(batch_size)
        rows = order[step % (len(images) // batch_size)]
        looks = (torch.rand(len(rows)) < 0.4) * torch.randint(0, len(LOOKS), (len(rows),))
        kinds, which = torch.unique(classes[rows] * len(LOOKS) + looks, return_inverse=True)
        texts = tokenizer([caption(int(k) // len(LOOKS), int(k) % len(LOOKS)) for k in kinds])
        pixels = normalise(change_looks(shift_and_flip(images[rows].float()), looks))
        with torch.autocast("cpu", torch.bfloat16):
            image_vectors = model.encode_image(pixels)
            text_vectors = model.encode_text(texts)
        image_vectors = F.normalize(image_vectors.float(), dim=1)
        text_vectors = F.normalize(text_vectors.float(), dim=1)
        loss = contrastive_loss(image_vectors, text_vectors, which, model.logit_scale.exp().clamp(max=100))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            rate = (step + 1) * batch_size / (time.time() - started)
            click.echo(f"step {step + 1}/{steps}  loss {loss.item():.3f}  {rate:.0f} images/s")
        if (step + 1) % 780 == 0:
            accuracy = zero_shot_accuracy(model, tokenizer, test_images, test_classes)
            click.echo(f"zero-shot on the test images: {accuracy:.4f}")
    model.eval()
    half = {name: value.detach().contiguous().half() for name, value in model.state_dict().items()}
    save_file({name: value for name, value in half.items() if "num_batches_tracked" not in name}, out)
    model.load_state_dict({name: value.float() for name, value in half.items()}, strict=False)
    accuracy = zero_shot_accuracy(model, tokenizer, test_images, test_classes)
    click.echo(f"{out}: zero-shot accuracy {accuracy:.4f} on {len(test_images)} CIFAR-10 test images")


if __name__ == "__main__":
    main()
