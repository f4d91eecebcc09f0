"""What a wrong share costs `compare --adapt`: accuracy when a half is assumed REAL and the truth is another share.

    python scripts/wrong_share.py VECTORS --heads logreg,layer-probes

Each category of the training images is held out in its turn. Its images are drawn so that the share of REAL is 0.1 to
0.9, and scored as they are, with the mean P as threshold, and adapted with a half assumed and with the true share.
VECTORS is what `cache export` writes (Parquet: the rows of the train split), or an .npz with `x` [N, D] (or [N, blocks,
D]), `y` (1 = REAL) and `c` (category).
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from toolkit.evaluation.adapted import line, log_odds
from toolkit.heads import make_head

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DRAWS = 50


def read(path: Path, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """Vectors, labels, categories, and the numbers of columns of their blocks, if they are blocks."""
    if path.suffix == ".npz":
        found = np.load(path)
        x = found["x"].astype(np.float32)
        blocks = (x.shape[2],) * x.shape[1] if x.ndim == 3 else ()
        return x.reshape(len(x), -1), np.where(found["y"] == 1, "REAL", "FAKE"), found["c"], blocks
    rows = pl.read_parquet(path).filter(pl.col("split") == "train").sort("path")
    x = rows["vector"].list.to_array(len(rows["vector"][0])).to_numpy()
    labels, categories = (rows[name].cast(pl.String).to_numpy() for name in ("label", "category"))
    return x, labels, categories, (block,) * (x.shape[1] // block) if block else ()


def ways(p: np.ndarray, real: np.ndarray, truth: float) -> list[float]:
    """Accuracies: as it is, at the mean P, with a half assumed, with the true share assumed."""
    odds = log_odds(p)
    called = [p > 0.5, p > p.mean(), odds > line(odds, 0.5), odds > line(odds, truth)]
    return [float((one == real).mean()) for one in called]


def drawn(real: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The rows of the largest sample with this share of REAL; the scarcer label is drawn."""
    sides = np.flatnonzero(real), np.flatnonzero(~real)
    total = min(len(sides[0]) / share, len(sides[1]) / (1 - share))
    counts = round(total * share), round(total * (1 - share))
    return np.concatenate([rng.choice(side, count, replace=False) for side, count in zip(sides, counts, strict=True)])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("vectors", type=Path)
    asked.add_argument("--heads", default="logreg")
    asked.add_argument(
        "--block", type=int, default=0, help="Columns of a block, if the vectors of a Parquet are blocks."
    )
    options = asked.parse_args()
    x, y, categories, blocks = read(options.vectors, options.block)
    for name in options.heads.split(","):
        found = {share: [] for share in SHARES}
        for category in np.unique(categories):
            out = categories == category
            head = make_head(name, {}, "category", 0, None, blocks)
            head.fit(x[~out], y[~out], groups=categories[~out])
            p, real = head.predict_proba(x[out])[:, list(head.classes_).index("REAL")], y[out] == "REAL"
            for share in SHARES:
                rng = np.random.default_rng([0, round(10 * share)])
                each = [ways(p[rows], real[rows], share) for rows in (drawn(real, share, rng) for _ in range(DRAWS))]
                found[share].append(np.mean(each, axis=0))
        print(f"{options.vectors.name}, {name}, mean of {len(np.unique(categories))} held-out categories")
        print("true share of REAL    " + "  ".join(f"{share:5.1f}" for share in SHARES))
        for number, way in enumerate(("as it is", "mean P as threshold", "a half assumed", "the truth assumed")):
            means = [np.mean([one[number] for one in found[share]]) for share in SHARES]
            print(f"{way:21} " + "  ".join(f"{mean:.3f}" for mean in means))
        half = np.array(found[0.5])
        print(f"by category at 0.5: as it is {half[:, 0].round(2)}, a half assumed {half[:, 2].round(2)}")


if __name__ == "__main__":
    main()
