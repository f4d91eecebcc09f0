"""`python -m benchmarks suspects`: of labels that were flipped on purpose, how many are among the first suspects."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import polars as pl


@click.command()
@click.option("--data", required=True, help="A data set of two labels, as CIFAKE's zip.")
@click.option("--share", default=0.02, show_default=True, help="The share of each split's labels that is flipped.")
@click.option("--seed", default=0, show_default=True, help="Which labels.")
@click.option("--head", "heads", multiple=True, default=["lda"], show_default=True)
@click.option("--place", type=click.Path(path_type=Path), help="A folder to keep, so that nothing is embedded twice.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the figures here.")
def suspects(data: str, share: float, seed: int, heads: tuple[str, ...], place: Path | None, out: Path | None) -> None:
    """Flip labels, embed everything with nano and its blocks, and rank the suspects by both kinds of folds.

    Of each split, and of as many first suspects as labels were flipped: how many of these had a flipped label.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = place or Path(folder)
        table, flipped = _flip(data, home / "images", share, seed)
        plan = ["--data", str(table), "--model", "nano", "--full", "--split", "none"]
        plan += ["--cache", str(home / "cache"), "--results", str(home / "results")]
        _run("embed", *plan, "--features", "blocks")
        figures = []
        for head in heads:
            for how in ("folds", "category"):
                found = json.loads(_run("data", "suspects", *plan, "--head", head, "--leave-out", how, "--json"))
                for split in ("train", "test"):
                    figures.append({"head": head, "left_out": how, "split": split, **_counted(found, split, flipped)})
                    click.echo(json.dumps(figures[-1]))
    if out:
        out.write_text(json.dumps(figures, indent=1))


def _flip(data: str, folder: Path, share: float, seed: int) -> tuple[Path, set[str]]:
    """The images below `folder`, a table beside them with flipped labels, and the paths of the flipped ones."""
    from toolkit.data.sources import open_data

    dataset = open_data(data)
    rows = dataset.rows.select(pl.col("path", "label", "category", "split").cast(pl.String))
    for path in rows["path"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(dataset.read(path))
    first, second = dataset.labels()
    rng, flipped = np.random.default_rng(seed), set()
    for split in ("train", "test"):
        paths = rows.filter(pl.col("split") == split)["path"].to_numpy()
        flipped |= set(rng.choice(paths, round(share * len(paths)), replace=False).tolist())
    other = pl.col("label").replace_strict({first: second, second: first})
    wrong = pl.when(pl.col("path").is_in(list(flipped))).then(other).otherwise("label")
    rows.with_columns(label=wrong).write_csv(folder / "flipped.csv")
    return folder / "flipped.csv", flipped


def _run(*words: str) -> str:
    command = [sys.executable, "cli.py", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _counted(found: list[dict[str, object]], split: str, flipped: set[str]) -> dict[str, float]:
    ranked = [one for one in found if one["split"] == split]
    wrong = [one["path"] in flipped for one in ranked]
    suspect = [bad for bad, one in zip(wrong, ranked, strict=True) if one["suspect"]]
    count = sum(wrong)
    facts = {"images": len(ranked), "flipped": count, "among_first": sum(wrong[:count])}
    return {**facts, "share": sum(wrong[:count]) / count, "suspects": len(suspect), "flipped_suspects": sum(suspect)}
