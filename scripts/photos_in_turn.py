"""How much of photos-100 is the generator, and how much the files' history: one generator and one subject at a time.

    python scripts/photos_in_turn.py tables PHOTOS   # writes turn1.csv to turn5.csv: one pair tests, 80 images train
    python cli.py embed --data PHOTOS/turn1.csv --split none --full --features blocks --cache CACHE … [--equalise STEPS]
    python scripts/photos_in_turn.py score PHOTOS CACHE --block 8 [--equalise STEPS]

PHOTOS is the unpacked zip; the cache holds one encoder. A score is over the five turns together, 100 images.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from toolkit.cache.store import Cache, find_encoders
from toolkit.data.manifest import hash_rows
from toolkit.data.sources import Reading, open_data
from toolkit.encoders.features import file_facts
from toolkit.evaluation.intervals import wilson
from toolkit.heads import make_head

TURNS = range(1, 6)


def tables(photos: Path) -> None:
    """Pair the generators with the subjects, both by name, and write a table for each pair."""
    rows = pl.read_csv(photos / "photos.csv")
    sides = [sorted(rows[name].drop_nulls().unique()) for name in ("generator", "subject")]
    pairs = {one: "+".join(pair) for pair in zip(*sides, strict=True) for one in pair}
    named = rows.with_columns(category=pl.coalesce("generator", "subject").replace_strict(pairs))
    for turn, pair in zip(TURNS, sorted(set(pairs.values())), strict=True):
        split = pl.when(pl.col("category") == pair).then(pl.lit("test")).otherwise(pl.lit("train"))
        named.select("path", "label", "category", split=split).write_csv(photos / f"turn{turn}.csv")


def score(photos: Path, folder: Path, block: int, equalise: str | None) -> None:
    """Print the accuracy of heads on the last layer, on the blocks, on one block, and on the facts of the files."""
    data = [open_data(photos / f"turn{turn}.csv", asked=Reading(equalise=equalise)) for turn in TURNS]
    rows = hash_rows(data[0], data[0].rows.sort("path"))
    y, groups = (rows[name].cast(pl.String).to_numpy() for name in ("label", "category"))
    found = {one.name: one for one in find_encoders(folder, lambda one: one.name in ("base", "blocks"))}
    last, blocks = (Cache(folder, found[name]).read_images(rows["sha256"].to_list()) for name in ("base", "blocks"))
    ends = np.cumsum((0, *found["blocks"].blocks))
    facts = np.stack([file_facts(data[0].read(path)) for path in rows["path"]])
    inputs = {"last layer": last, f"block {block}": blocks[:, ends[block - 1] : ends[block]], "blocks": blocks}
    for name, X in [*inputs.items(), ("file facts", facts)]:
        right = np.zeros(len(y), bool)
        for one in data:
            out = (one.rows.sort("path")["split"] == "test").to_numpy()
            head = make_head("shortcut" if name == "file facts" else "logreg", {}, "category", 0)
            right[out] = head.fit(X[~out], y[~out], groups=groups[~out]).predict(X[out]) == y[out]
        low, high = wilson(int(right.sum()), len(right))
        print(f"{equalise or 'as the files are'}: {name} {right.mean():.2f} [{low:.2f}-{high:.2f}]", flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=["tables", "score"])
    asked.add_argument("photos", type=Path)
    asked.add_argument("cache", type=Path, nargs="?")
    asked.add_argument("--block", type=int, default=8)
    asked.add_argument("--equalise")
    options = asked.parse_args()
    if options.what == "tables":
        tables(options.photos)
    else:
        score(options.photos, options.cache, options.block, options.equalise)


if __name__ == "__main__":
    main()
