"""The study that we start from, in figures, and the wide summary that people read."""

from typing import Any

import polars as pl

from toolkit import columns

CLASSES = ("FAKE", "REAL")

STUDY: dict[tuple[str, str, str], dict[str, float]] = {
    ("base", "zero-shot", "base"): {
        "accuracy": 0.50,
        "precision_FAKE": 0.50,
        "recall_FAKE": 1.00,
        "precision_REAL": 0.00,
        "recall_REAL": 0.00,
    },
    ("finetuned", "zero-shot", "base"): {
        "accuracy": 0.90,
        "precision_FAKE": 0.97,
        "recall_FAKE": 0.83,
        "precision_REAL": 0.85,
        "recall_REAL": 0.97,
    },
    ("finetuned", "zero-shot", "novel"): {
        "accuracy": 0.70,
        "precision_FAKE": 1.00,
        "recall_FAKE": 0.40,
        "precision_REAL": 0.62,
        "recall_REAL": 1.00,
    },
}
"""(encoder, head, test) -> what the study reports for ViT-B/32 (OpenAI weights) on 200 test images each."""

ROW = [*columns.COMPARISON, "encoder", "recipe", "encoder_id", "head", "chosen_by"]
"""What one line of the summary stands for: everything but test set and class."""

PER_CLASS = ("precision", "recall", "f1", "support")


def study_figure(row: dict[str, Any], test: str, figure: str) -> float | None:
    """The study's own figure for a row of the table or the summary, where its data is CIFAKE and its split is cat."""
    if not str(row["dataset"]).startswith("cifake") or row["held_out"] != "cat":
        return None
    return STUDY.get((row["encoder"], row["head"], test), {}).get(figure)


def labels_of(table: pl.DataFrame) -> list[str]:
    """The two labels of a table, in their order."""
    return table.filter(pl.col("class") != "all")["class"].unique(maintain_order=True).to_list()


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """The table made wide: one row an encoder and head, `base_…` and `novel_…` columns side by side.

    For each test set accuracy with its interval, `p_best`, and precision, recall, f1, support of each label; `drop` is
    base minus novel accuracy; `study_base` and `study_novel` are the study's accuracies where they apply.
    """
    labels = labels_of(table)
    rows = []
    for key, group in table.group_by(ROW, maintain_order=True):
        row: dict[str, Any] = dict(zip(ROW, key, strict=True))
        for test in ("base", "novel"):
            row |= _of_test(group.filter(pl.col("test") == test), test, labels)
            row[f"study_{test}"] = study_figure(row, test, "accuracy")
        both = row["base_accuracy"] is not None and row["novel_accuracy"] is not None
        row["drop"] = row["base_accuracy"] - row["novel_accuracy"] if both else None
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _of_test(group: pl.DataFrame, test: str, labels: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    first = group.row(0, named=True) if len(group) else {}
    for name in ("accuracy", "accuracy_low", "accuracy_high", "roc_auc", "p_best"):
        found[f"{test}_{name}"] = first.get(name)
    for label in labels:
        of_label = group.filter(pl.col("class") == label)
        values = of_label.row(0, named=True) if len(of_label) else {}
        found |= {f"{test}_{name}_{label}": values.get(name) for name in PER_CLASS}
    return found


def left_out_means(table: pl.DataFrame) -> pl.DataFrame:
    """Mean and worst accuracy over the held-out categories, for each encoder and head that has more than one."""
    by = [name for name in ROW if name not in ("held_out", "encoder_id")] + ["test"]
    return (
        table.filter(pl.col("class") == "all")
        .group_by(by, maintain_order=True)
        .agg(
            categories=pl.col("held_out").n_unique(),
            mean=pl.col("accuracy").mean(),
            worst=pl.col("accuracy").min(),
            worst_category=pl.col("held_out").sort_by("accuracy").first(),
        )
        .filter(pl.col("categories") > 1)
    )
