"""`finetuning`: a training step of both towers, against the plain step and one of the image tower alone."""

import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import click

from benchmarks.embedding import made, write_photographs
from benchmarks.turns import Goal, Timing, on_device, report, rounds_and_json, settle

BATCH = 32


@click.command()
@click.option("--model", default="ViT-B-32", show_default=True)
@on_device
@rounds_and_json
def finetuning(model: str, device: str, precision: str, rounds: int, out: Path | None) -> None:
    """Goals: twice as fast as a plain step (a caption an image, all tokens), within 10 % of the image tower's own.

    The plain step takes the toolkit's batches from the same weights on, so that its loss has to be the same.
    """
    from toolkit.data.sources import open_data
    from toolkit.finetuning.recipes import Recipe
    from toolkit.finetuning.training import finetune
    from toolkit.results.published import PROMPTS

    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        dataset = open_data(write_photographs(home / "images", BATCH * (rounds + 1), (32, 32)))
        rows = dataset.rows.with_columns(sha256=dataset.rows["path"], group=dataset.rows["category"])
        encoder, recipe = made(model, home, device, precision), Recipe(epochs=1, batch_size=BATCH).for_model(model)
        batches = batches_of(dataset, rows, encoder, recipe)
        others = {"plain step": PlainStep(encoder, batches, recipe)}
        others["image tower alone"] = ImageTowerStep(encoder, batches, recipe)
        timings = {way: Timing(way) for way in ["toolkit", *others]}
        clock = [time.perf_counter(), time.process_time()]
        apart: list[float] = []

        def after_each_step(done: int, total: int, loss: float) -> None:
            """The toolkit's step has just ended; the other ways take theirs before it goes on."""
            _note(timings["toolkit"], clock, device)
            for way, step in others.items():
                clock[:] = time.perf_counter(), time.process_time()
                step(done - 1)
                _note(timings[way], clock, device)
            apart.append(abs(loss - others["plain step"].losses[-1]))
            click.echo(f"  step {done}/{total}: loss {loss:.6f}, {apart[-1]:.1e} from the plain step's", err=True)
            clock[:] = time.perf_counter(), time.process_time()

        prompts = {label: [PROMPTS[label]] for label in ("FAKE", "REAL")}
        finetune(encoder, dataset, rows, "none", prompts, recipe, home / "cache", after_each_step)
    for timing in timings.values():  # the first step of each warms up
        del timing.wall[0], timing.cpu[0]
    goals = [Goal(f"greatest difference of the loss, {len(apart)} steps", max(apart), at_most=1e-5)]
    for kind in ("wall", "cpu"):
        ours, plain, alone = (timings[way].median(kind) for way in ("toolkit", "plain step", "image tower alone"))
        goals.append(Goal(f"plain / toolkit, {kind}", plain / ours, at_least=2.0))
        goals.append(Goal(f"toolkit / image tower, {kind}", ours / alone, at_most=1.1))
    report(f"A fine-tuning step of {BATCH} images, {model}, {device} {precision}", timings, goals, BATCH, out)


def batches_of(dataset: Any, rows: Any, encoder: Any, recipe: Any) -> list[tuple[Any, list[str]]]:
    """Images, as the model takes them, and labels of each of the toolkit's batches."""
    import numpy as np

    from toolkit.finetuning.run import order_in_batches

    paths, labels = rows["path"].to_list(), rows["label"].to_list()
    pixels = np.stack([encoder.prepare(dataset.read(path)) for path in paths])
    orders = order_in_batches(len(paths), 0, recipe)
    return [(encoder.pixels_to_input(pixels[order]), [labels[row] for row in order]) for order in orders]


def _note(timing: Timing, clock: list[float], device: str) -> None:
    settle(device)
    timing.wall.append(time.perf_counter() - clock[0])
    timing.cpu.append(time.process_time() - clock[1])


class PlainStep:
    """One caption an image, every token, open_clip's own loss."""

    def __init__(self, encoder: Any, batches: list[tuple[Any, list[str]]], recipe: Any):
        import torch
        from open_clip.loss import ClipLoss

        self.model, self.device = deepcopy(encoder.model).train(), encoder.device
        self.precision = encoder.source.precision
        self.batches, self.tokenizer, self.temperature = batches, encoder.tokenizer, recipe.temperature
        self.loss, self.losses = ClipLoss(), list[float]()
        settings = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **settings)

    def loss_of(self, images: Any, labels: list[str]) -> Any:
        """The loss of the batch."""
        import torch.nn.functional as functional

        from toolkit.results.published import PROMPTS

        texts = self.tokenizer([PROMPTS[label] for label in labels]).to(self.device)
        features = self.model.encode_image(images), self.model.encode_text(texts)
        return self.loss(*(functional.normalize(one.float(), dim=-1) for one in features), 1 / self.temperature)

    def __call__(self, number: int) -> None:
        from toolkit.encoders.openclip import arithmetic, products

        with arithmetic(self.device, self.precision):
            loss = self.loss_of(*self.batches[number])
        self.losses.append(float(loss.detach()))
        self.optimizer.zero_grad(set_to_none=True)
        with products(self.precision):
            loss.backward()
        self.optimizer.step()


class ImageTowerStep(PlainStep):
    """Forward, backward and update of the image tower, with a loss that costs nothing."""

    def loss_of(self, images: Any, labels: list[str]) -> Any:
        return self.model.encode_image(images).square().mean()
