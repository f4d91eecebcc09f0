"""Complete an image tower with a seeded random text tower, so that it loads as a whole CLIP.

    python scripts/complete_tower.py TOWER.safetensors OUT.safetensors --model ViT-B-16-quickgelu

Zero-shot with such a CLIP says nothing; probes and fine-tuning do.
"""

from pathlib import Path

import click
import open_clip
import torch
from safetensors.torch import load_file, save_file


@click.command()
@click.argument("tower", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--model", default="ViT-B-16-quickgelu", show_default=True)
@click.option("--seed", default=0, show_default=True)
def complete(tower: Path, out: Path, model: str, seed: int) -> None:
    """Write OUT: the weights of TOWER, and everything else as open_clip initialises it after `--seed`."""
    torch.manual_seed(seed)
    whole = open_clip.create_model(model).state_dict()
    given = load_file(tower)
    unknown = set(given) - set(whole)
    if unknown:
        raise click.ClickException(f"{tower} holds tensors that {model} does not have: {sorted(unknown)[0]}")
    save_file({name: given.get(name, tensor).contiguous() for name, tensor in whole.items()}, out)
    click.echo(f"{len(given)} tensors of {tower}, {len(whole) - len(given)} drawn with seed {seed}: {out}")


if __name__ == "__main__":
    complete()
