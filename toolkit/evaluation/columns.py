"""The columns of the two tables, in their order, and what each one says. Documentation and workbook read them here."""

import polars as pl

S, F, N = pl.String, pl.Float64, pl.Int64

Kind = type[pl.DataType] | pl.DataType

RESULTS: dict[str, tuple[Kind, str]] = {
    "dataset": (S, "Name of the data set."),
    "held_out": (S, "The novel category: no training image belongs to it. `none` where nothing is held out."),
    "encoder": (
        S,
        "`base` as published, `blocks` inside it, `finetuned` on the training images; `pixels`, `file facts`: no CLIP.",
    ),
    "head": (S, "What turns embeddings into a label: `zero-shot`, `logreg`, `layer-probes`, `knn`, `cnn`, …"),
    "test": (S, "`base`: test images of the other categories. `novel`: of the held-out one. `other`: of `test_data`."),
    "class": (S, "A label, or `all`: the means over the labels (of more than two, over those that have test images)."),
    "precision": (F, "Of the images called this class, the share that is. 0 for a class that is never predicted."),
    "recall": (F, "Of the images of this class, the share that was called so."),
    "f1": (F, "Harmonic mean of precision and recall."),
    "support": (N, "Test images of this class."),
    "accuracy": (F, "Share of all test images that were called right; the same on every class's row."),
    "precision_low": (F, "Lower end of the 95 % interval: Wilson's for a class, the bootstrap's for `all`."),
    "precision_high": (F, "Upper end of it."),
    "recall_low": (F, "Lower end of the 95 % interval: Wilson's for a class, the bootstrap's for `all`."),
    "recall_high": (F, "Upper end of it."),
    "f1_low": (F, "Lower end of the 95 % interval, stratified bootstrap of 1,000 samples."),
    "f1_high": (F, "Upper end of it."),
    "accuracy_low": (F, "Lower end of Wilson's 95 % interval."),
    "accuracy_high": (F, "Upper end of it."),
    "balanced_accuracy": (F, "Mean of the classes' recalls."),
    "roc_auc": (
        F,
        "Chance that a REAL image has a higher P(REAL) than a FAKE one; of more than two labels each against the rest.",
    ),
    "roc_auc_low": (
        F,
        "Lower end of the 95 % interval: stratified bootstrap of 1,000 samples; of more than two labels DeLong's.",
    ),
    "roc_auc_high": (F, "Upper end of it."),
    "average_precision": (
        F,
        "Area under the precision-recall curve of REAL; of more than two labels each against the rest.",
    ),
    "brier": (
        F,
        "Mean squared error of P(REAL): 0 is perfect, 0.25 is what always saying 0.5 gets. Of more than two labels the "
        "errors are summed over all of them (Brier 1950): 2 is the worst.",
    ),
    "calibration_error": (
        F,
        "Expected calibration error of P(REAL) over 15 equal bins: how far it is from the truth; of more than two "
        "labels each against the rest.",
    ),
    "p_best": (F, "Exact McNemar p-value against the most accurate row on the same images; empty for that row itself."),
    "model": (S, "Name of the CLIP model that the comparison is about."),
    "pretrained": (S, "Its weights: a tag of open_clip's or a file's name."),
    "encoder_id": (S, "Hash over the encoder's weights, preprocessing and precision."),
    "recipe": (S, "How it was fine-tuned; empty for base."),
    "perturbation": (S, "What was done to the test images, as `jpeg:75`; empty where nothing was."),
    "test_data": (S, "The data set of the test images, where it is another one than `dataset`; else empty."),
    "seed": (N, "Seed of the training rows, of fine-tuning, and of all else that is random."),
    "train_per_label": (N, "Training images of each label that were asked for; empty means all."),
    "test_per_label": (N, "Test images of each label that were asked for; empty means all."),
    "train_rows": (N, "Training images used."),
    "leaks_dropped": (N, "Test images passed over because their bytes are in the training set."),
    "choice": (
        S,
        "What the head chose inside the training images (JSON); in it `recipe`: what its encoder's recipe chose there.",
    ),
    "chosen_by": (
        S,
        "How it chose: `category` leaves one training category out at a time, `folds` random fifths; `default`: a "
        "label had one image alone, so that nothing could be left out.",
    ),
    "code_version": (S, "Version of the toolkit and a hash over its code."),
    "config_hash": (S, "Hash over the settings of this comparison."),
    "data_hash": (S, "Hash over the contents and labels of the images that trained and tested."),
    "created": (S, "When it was computed (UTC)."),
    "labels": (S, "The labels that were told apart, in their order (JSON)."),
    "split_by": (S, "The column of the data whose value `held_out` is: `category`, `label`, or as `generator`."),
    "images": (S, "Hash over the comparison's training and test images: rows about other images differ in it."),
    "study": (
        S,
        "Rows that share it repeat one question on the same data; means are taken over them alone.",
    ),
    "log_loss": (F, "Mean of -log P(right label), natural logarithm; the same on every class's row."),
    "top_calibration_error": (
        F,
        "Expected calibration error of P(predicted label) over 15 equal bins; the same on every class's row.",
    ),
    "top5_accuracy": (F, "Share of images whose label is among the five likeliest; empty below six labels."),
    "p_best_corrected": (F, "The same, corrected for picking the best row on these images; empty for that row itself."),
    "selection_bias": (F, "Of the most accurate row: how much of its accuracy is expected to come from being picked."),
    "harmonic_mean": (F, "Of base and novel accuracy, on rows of `all`; filled where labels are held out."),
}

PREDICTIONS: dict[str, tuple[Kind, str]] = {
    "dataset": (S, "As in the results."),
    "held_out": (S, "As in the results."),
    "encoder": (S, "As in the results."),
    "head": (S, "As in the results."),
    "test": (S, "As in the results."),
    "path": (S, "The image's path inside the data."),
    "sha256": (S, "SHA-256 of its bytes."),
    "category": (S, "Its category."),
    "label": (S, "Its true label."),
    "predicted": (S, "What the head called it."),
    "p_real": (F, "P(REAL), or of whatever label is positive; empty for more than two labels where none is."),
    "model": (S, "As in the results."),
    "pretrained": (S, "As in the results."),
    "encoder_id": (S, "As in the results."),
    "recipe": (S, "As in the results."),
    "perturbation": (S, "As in the results."),
    "test_data": (S, "As in the results."),
    "seed": (N, "As in the results."),
    "train_per_label": (N, "As in the results."),
    "test_per_label": (N, "As in the results."),
    "chosen_by": (S, "As in the results."),
    "labels": (S, "As in the results."),
    "split_by": (S, "As in the results."),
    "images": (S, "As in the results."),
    "study": (S, "As in the results."),
    "probabilities": (
        pl.List(F),
        "P of each label, in the order of `labels`, or, where labels are held out, of the test set's classes in the "
        "results: a list, in the CSV as JSON.",
    ),
    "p_predicted": (F, "P(`predicted`)."),
    "p_label": (F, "P(`label`)."),
}

LATER = ("log_loss", "top_calibration_error", "top5_accuracy", "p_best_corrected", "selection_bias", "harmonic_mean")
"""Figures that rows of earlier versions lack: empty there, though the predictions would give them."""

SIZES = ["model", "pretrained", "train_per_label", "test_per_label"]
QUESTION = ["dataset", "labels", "split_by", *SIZES]
"""What a study's comparisons share; `held_out`, `seed` and with them `images` differ among its repetitions."""

COMPARISON = [*QUESTION, "held_out", "seed", "images"]
"""What all rows of one comparison share."""

TEST = ["test", "perturbation", "test_data"]
"""What tells one test set of a comparison from another."""

KEY = [*COMPARISON, "encoder", "recipe", "encoder_id", "head", "chosen_by", *TEST]
"""What tells one scored test set from another: rows with an equal key replace each other."""


def ordinary(table: pl.DataFrame) -> pl.DataFrame:
    """The rows on the data's own test images as they are: base and novel, nothing perturbed, no other data."""
    return table.filter(pl.all_horizontal(pl.col("perturbation", "test_data").fill_null("") == ""))


def brought_up_to_date(table: pl.DataFrame, wanted: dict[str, tuple[Kind, str]]) -> pl.DataFrame:
    """A stored table that lacks newer columns gets them: text empty, numbers null. Others stay as they are.

    Version 1 told neither labels nor images apart: `results.version_1` fills in what is empty then.
    """
    if "split_by" not in table.columns:
        table = table.with_columns(split_by=pl.lit("category"))
    new = [pl.lit("" if kind == S else None, dtype=kind).alias(name) for name, (kind, _) in wanted.items()]
    whole = table.with_columns(column for column in new if column.meta.output_name() not in table.columns)
    if set(whole.columns) != set(wanted):
        return table
    return with_probabilities(whole.select(list(wanted))) if wanted is PREDICTIONS else whole.select(list(wanted))


def with_probabilities(predictions: pl.DataFrame) -> pl.DataFrame:
    """Predictions with what rows of two labels may lack, as those of earlier versions do: `probabilities`,
    `p_predicted` and `p_label` follow from `p_real` then, which is P(second label)."""
    p = pl.col("p_real")
    likelier = pl.max_horizontal(p, 1 - p)
    found = {
        "probabilities": pl.concat_list(1 - p, p),
        "p_predicted": likelier,
        "p_label": pl.when(pl.col("label") == pl.col("predicted")).then(likelier).otherwise(1 - likelier),
    }
    lacks = pl.col("probabilities").is_null() & p.is_not_null()
    return predictions.with_columns(
        pl.when(lacks).then(values).otherwise(pl.col(name)).alias(name) for name, values in found.items()
    )


def schema(columns: dict[str, tuple[Kind, str]]) -> dict[str, Kind]:
    """Names and types, in their order."""
    return {name: kind for name, (kind, _) in columns.items()}
