"""`draws`: how many training rows k-NN needs to choose k and weighting, by repeating the choice on random draws."""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from benchmarks.comparing import generated
from toolkit.heads.base import fold_numbers
from toolkit.heads.knn import K_GRID, WEIGHTINGS, NearestNeighbours
from toolkit.heads.neighbours import search_outside_their_fold

Rows = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""A name; vectors `[N, D]`, labels `[N]`, categories `[N]`."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Vectors of nano; else the generated ones of comparing.")
@click.option("--cache", default="cache", show_default=True, type=click.Path(path_type=Path))
@click.option("--size", "sizes", multiple=True, type=int, default=(500, 1000, 2000, 5000), show_default=True)
@click.option("--draws", default=200, show_default=True)
@click.option("--pool", default=20_000, show_default=True, help="At most so many rows are drawn from.")
def draws(data: Path | None, cache: Path, sizes: tuple[int, ...], draws: int, pool: int) -> None:
    """For each training set and size: how often the choice is that of all rows, and how much worse in log loss."""
    for name, X, y, groups in real(data, cache) if data else made():
        losses, folds = each_loss(X, y, groups, pool)
        whole = means(losses, folds)
        best, rng = int(whole.argmin()), np.random.default_rng(1)
        k, weighting = K_GRID[best % len(K_GRID)], WEIGHTINGS[best // len(K_GRID)]
        click.echo(f"{name}, {len(X):,} rows: k = {k}, {weighting}, log loss {whole[best]:.4f}")
        for size in sizes:
            drawn = [rng.choice(len(losses), min(size, len(losses)), replace=False) for _ in range(draws)]
            chosen = np.array([means(losses[some], folds[some]).argmin() for some in drawn])
            worse = np.quantile(whole[chosen] - whole[best], 0.95)
            click.echo(f"  {size:6,} rows: the same in {(chosen == best).mean():4.0%}; worse by {worse:.4f} in 1 of 20")


def made() -> Iterator[Rows]:
    """The generated vectors of `comparing`, without one category and without another."""
    rows, base = generated(100_000, 20)
    y, groups = rows["label"].to_numpy(), rows["category"].to_numpy()
    for out in ("c0", "c1"):
        yield f"generated without {out}", base[groups != out], y[groups != out], groups[groups != out]


def real(data: Path, cache: Path) -> Iterator[Rows]:
    """The training images of a data set without one category after another; embeds what the cache lacks."""
    from toolkit import Study

    study = Study(data, model="nano", split="all", cache=cache, train_per_label=None, test_per_label=None)
    for out in study.plan.held_out():
        train = study.embed(out).train
        if train.categories is not None:
            yield f"without {out}", train.X, train.y, train.categories


def each_loss(X: np.ndarray, y: np.ndarray, groups: np.ndarray, pool: int) -> tuple[np.ndarray, np.ndarray]:
    """-log P(label) `[M, settings]` of each row, fitted without its category, for each weighting and k; its fold."""
    head = NearestNeighbours().fit(X, y, groups)
    numbers, _ = fold_numbers(y, groups, "category")
    rows = np.sort(np.random.default_rng(0).choice(len(X), min(pool, len(X)), replace=False))
    cosines, found = search_outside_their_fold(head.vectors_, numbers, rows, K_GRID[-1])
    shares = [head._shares(cosines[:, :k], found[:, :k], weighting) for weighting in WEIGHTINGS for k in K_GRID]
    right = np.arange(len(rows)), head.codes_[rows]
    return -np.log(np.stack([share[right] for share in shares], axis=1)), numbers[rows]


def means(losses: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """The mean over the folds of each setting's mean loss."""
    return np.mean([losses[folds == one].mean(axis=0) for one in np.unique(folds)], axis=0)
