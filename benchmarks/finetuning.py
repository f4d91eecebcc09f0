"""`finetuning`: a training step of both towers, against the plain step and one of the image tower alone."""

import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import click

from benchmarks.embedding import made, write_photographs
from benchmarks.turns import Goal, Timing, report, rounds_and_json

BATCH = 32


@click.command()
@click.option("--model", default="ViT-B-32", show_default=True)
@rounds_and_json
def finetuning(model: str, rounds: int, out: Path | None) -> None:
    """Goals: twice as fast as a plain step (a caption an image, all tokens), within 10 % of the image tower's own."""
    from toolkit.finetune import finetune
    from toolkit.recipes import Recipe
    from toolkit.sources import open_data
    from toolkit.study import PROMPTS

    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        dataset = open_data(write_photographs(home / "images", BATCH * (rounds + 1), (32, 32)))
        rows = dataset.rows.with_columns(sha256=dataset.rows["path"])
        encoder = made(model, home)
        others = {"plain step": PlainStep(encoder), "image tower alone": ImageTowerStep(encoder)}
        timings = {way: Timing(way) for way in ["toolkit", *others]}
        clock = [time.perf_counter(), time.process_time()]

        def after_each_step(done: int, total: int, loss: float) -> None:
            """The toolkit's step has just ended; the other ways take theirs before it goes on."""
            _note(timings["toolkit"], clock)
            for way, step in others.items():
                clock[:] = time.perf_counter(), time.process_time()
                step()
                _note(timings[way], clock)
            click.echo(f"  step {done}/{total}: loss {loss:.4f}", err=True)
            clock[:] = time.perf_counter(), time.process_time()

        prompts = {label: [PROMPTS[label]] for label in ("FAKE", "REAL")}
        recipe = Recipe(epochs=1, batch_size=BATCH)
        finetune(encoder, dataset, rows, "none", prompts, recipe, home / "cache", after_each_step)
    for timing in timings.values():  # the first step of each warms up
        del timing.wall[0], timing.cpu[0]
    goals = []
    for clock in ("wall", "cpu"):
        ours, plain, alone = (timings[way].median(clock) for way in ("toolkit", "plain step", "image tower alone"))
        goals.append(Goal(f"plain / toolkit, {clock}", plain / ours, at_least=2.0))
        goals.append(Goal(f"toolkit / image tower, {clock}", ours / alone, at_most=1.1))
    report(f"A fine-tuning step of {BATCH} images, {model}", timings, goals, BATCH, out)


def _note(timing: Timing, clock: list[float]) -> None:
    timing.wall.append(time.perf_counter() - clock[0])
    timing.cpu.append(time.process_time() - clock[1])


class PlainStep:
    """One caption an image, every token, open_clip's own loss."""

    def __init__(self, encoder: Any):
        import torch
        from open_clip.loss import ClipLoss

        from toolkit.study import PROMPTS

        self.model = deepcopy(encoder.model).train()
        size = encoder.image_size
        self.images = torch.randn(BATCH, 3, *size)
        self.texts = encoder.tokenizer([PROMPTS["FAKE"], PROMPTS["REAL"]] * (BATCH // 2))
        self.loss = ClipLoss()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, weight_decay=0.01)

    def features(self) -> Any:
        """The loss of the batch."""
        import torch.nn.functional as functional

        images = functional.normalize(self.model.encode_image(self.images), dim=-1)
        texts = functional.normalize(self.model.encode_text(self.texts), dim=-1)
        return self.loss(images, texts, 1 / 0.07)

    def __call__(self) -> None:
        loss = self.features()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


class ImageTowerStep(PlainStep):
    """Forward, backward and update of the image tower, with a loss that costs nothing."""

    def features(self) -> Any:
        return self.model.encode_image(self.images).square().mean()
