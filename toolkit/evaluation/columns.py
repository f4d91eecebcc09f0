"""The columns of the two tables, in order, with their meanings, which documentation and workbook show."""

import polars as pl

S, F, N = pl.String, pl.Float64, pl.Int64

Kind = type[pl.DataType] | pl.DataType

AT_THRESHOLD = "accuracy_at_chosen_threshold"
ADAPTED = "adapted"
"""The column of what was assumed to adapt a row to its unlabelled test images."""

RESULTS: dict[str, tuple[Kind, str]] = {
    "dataset": (S, "Name of the data set."),
    "held_out": (
        S,
        "The held-out value (a category by default): no training image has it. `none` if nothing is held out.",
    ),
    "encoder": (
        S,
        "`base`: as published. `blocks`, `patches`: layers inside it. `finetuned`: on the training images. `pixels`, "
        "`file facts`: no CLIP.",
    ),
    "head": (S, "The classifier on the embeddings: `zero-shot`, `logreg`, `layer-probes`, `knn`, `cnn`, …"),
    "test": (
        S,
        "`base`: test images without the held-out value. `novel`: test images with it. `other`: images of `test_data`.",
    ),
    "class": (S, "A label, or `all`: the means over the labels (with more than two, over those with test images)."),
    "precision": (
        F,
        "Share of the images predicted as this class that belong to it. 0 for a class that is never predicted.",
    ),
    "recall": (F, "Share of the images of this class that are predicted as it."),
    "f1": (F, "Harmonic mean of precision and recall."),
    "support": (N, "Number of test images of this class."),
    "accuracy": (F, "Share of all test images that are predicted correctly; the same on every class's row."),
    "precision_low": (F, "Lower end of the 95 % interval: Wilson's for a class, the bootstrap's for `all`."),
    "precision_high": (F, "Upper end of this interval."),
    "recall_low": (F, "Lower end of the 95 % interval: Wilson's for a class, the bootstrap's for `all`."),
    "recall_high": (F, "Upper end of this interval."),
    "f1_low": (F, "Lower end of the 95 % interval from a stratified bootstrap of 1,000 samples."),
    "f1_high": (F, "Upper end of this interval."),
    "accuracy_low": (F, "Lower end of Wilson's 95 % interval."),
    "accuracy_high": (F, "Upper end of this interval."),
    "balanced_accuracy": (F, "Mean of the classes' recalls."),
    "roc_auc": (
        F,
        "Area under the ROC curve: the probability that a REAL image has a higher P(REAL) than a FAKE one. With "
        "more than two labels, each against the rest.",
    ),
    "roc_auc_low": (
        F,
        "Lower end of the 95 % interval: a stratified bootstrap of 1,000 samples; with more than two labels, DeLong's.",
    ),
    "roc_auc_high": (F, "Upper end of this interval."),
    "average_precision": (
        F,
        "Area under the precision-recall curve of REAL; with more than two labels, of each against the rest.",
    ),
    "brier": (
        F,
        "Mean squared error of P(REAL): 0 is perfect, 0.25 is what a constant 0.5 gets. With more than two labels, "
        "the squared errors are summed over the labels (Brier 1950), and 2 is the worst.",
    ),
    "calibration_error": (
        F,
        "Expected calibration error of P(REAL) over 15 equal bins: its mean distance from the observed share. With "
        "more than two labels, each against the rest.",
    ),
    "p_best": (F, "Exact McNemar p-value against the most accurate row on the same images; empty for that row itself."),
    "model": (S, "Name of the CLIP model that is compared."),
    "pretrained": (S, "Its weights: an open_clip tag or a file's name."),
    "encoder_id": (S, "Hash over the encoder's weights, preprocessing and precision."),
    "recipe": (S, "The recipe of fine-tuning; empty for base."),
    "perturbation": (S, "The perturbation of the test images, as `jpeg:75`; empty for none."),
    "test_data": (S, "The data set of the test images, if it is not `dataset`; else empty."),
    "seed": (
        N,
        "Random seed: of the choice of training images, of fine-tuning, and of everything else that is random.",
    ),
    "train_per_label": (N, "Requested training images per label; empty means all."),
    "test_per_label": (N, "Requested test images per label; empty means all."),
    "train_rows": (N, "Number of training images used."),
    "leaks_dropped": (
        N,
        "Test images left out because their bytes are in the training set (of `--shots`: in the largest one).",
    ),
    "choice": (
        S,
        "What the head chose inside the training images (JSON); its `recipe` is what the encoder's recipe chose there.",
    ),
    "chosen_by": (
        S,
        "How it chose, by cross-validation: `category` holds out one training category at a time, `folds` random "
        "fifths; `default`: a label has only one image, so that there was no cross-validation. With `(seen)` behind it "
        "it is no choice by category: the fine-tuned encoder was trained on the images that the head left out.",
    ),
    "code_version": (S, "Version of the toolkit and a hash over its code."),
    "config_hash": (S, "Hash over the settings of this comparison."),
    "data_hash": (S, "Hash over the contents and labels of the training and test images."),
    "created": (S, "Time of the computation (UTC)."),
    "labels": (S, "The labels of the comparison, in their order (JSON)."),
    "split_by": (S, "The column that `held_out` is a value of: `category`, `label`, or another such as `generator`."),
    "images": (
        S,
        "Hash over the comparison's training and test images: rows with different hashes are about different images.",
    ),
    "study": (S, "Rows with the same value repeat one comparison on the same data, and only these are averaged."),
    "log_loss": (F, "Mean of -log P(true label), natural logarithm; the same on every class's row."),
    "top_calibration_error": (
        F,
        "Expected calibration error of P(predicted label) over 15 equal bins; the same on every class's row.",
    ),
    "top5_accuracy": (F, "Share of images whose label is among the five most likely; empty for fewer than six labels."),
    "p_best_corrected": (
        F,
        "`p_best`, corrected for choosing the best row on these images; empty for that row itself.",
    ),
    "selection_bias": (
        F,
        "Only for the most accurate row: how much of its accuracy is expected to come from choosing the best row.",
    ),
    "harmonic_mean": (F, "Harmonic mean of base and novel accuracy, on rows of `all`; filled if labels are held out."),
    "chosen_threshold": (
        F,
        "Of two labels, the P(second label) above which left-out training images choose to call an image so: the bias "
        "of the log odds with the lowest log loss on them. Empty if the encoder was trained on these images.",
    ),
    AT_THRESHOLD: (
        F,
        "`accuracy` with `chosen_threshold` in place of a half. Whether it pays is in `choice`: `log_loss_with_bias` "
        "below `log_loss`.",
    ),
    f"{AT_THRESHOLD}_low": (F, "Lower end of Wilson's 95 % interval."),
    f"{AT_THRESHOLD}_high": (F, "Upper end of this interval."),
    "embedding_seconds": (
        F,
        "Wall seconds to embed the training images and prompts that this row needs: the mean for one of all that its "
        "encoder's cache holds, times their number. Rows of one encoder share them. Empty if not measured.",
    ),
    "training_seconds": (
        F,
        "Wall seconds of fine-tuning the encoder, the search for its settings included; 0 if it was not fine-tuned. "
        "Rows of one encoder share them. Empty if not measured.",
    ),
    "fitting_seconds": (
        F,
        "Wall seconds to choose and fit the head. The first head that needs a library loads it (about 0.1 s).",
    ),
    "answer_ms": (
        F,
        "Milliseconds to answer for one image: to read and embed it (mean over the cache), and the head's share in a "
        "batch of 64.",
    ),
    "parameters_trained": (N, "Parameters trained on images: the encoder's and the head's."),
    "bytes_an_image": (N, "Bytes of an image's vector in the cache."),
    "bytes_embedded": (N, "Bytes of the vectors of all images that this row needs, to train and to test."),
    "bytes_checkpoint": (N, "Bytes of the fine-tuned weights; 0 if the encoder was not fine-tuned."),
    "images_labelled": (N, "Labelled images that the row needs; 0 for prompts on the encoder as published."),
    "measured_on": (
        S,
        "The processor or GPU that measured the seconds, several joined by `+`; in brackets the encoder's precision.",
    ),
    "average_precision_low": (
        F,
        "Lower end of its 95 % interval: normal on the logit scale, from the images' influence, stratified by label.",
    ),
    "average_precision_high": (F, "Upper end of this interval."),
    "brier_low": (F, "Lower end of the 95 % interval of the mean squared error, stratified by label."),
    "brier_high": (F, "Upper end of this interval."),
    "calibration_error_low": (
        F,
        "Lower end of the 95 % interval: basic bootstrap; 0 where a perfectly calibrated head would show as much. For "
        "`all` of more than two labels, the mean of the labels' ends.",
    ),
    "calibration_error_high": (F, "Upper end of this interval."),
    "calibration_error_expected": (
        F,
        "The `calibration_error` that chance alone gives so many images if each P is right: what to read it against.",
    ),
    "difference_best": (F, "Accuracy minus that of the most accurate row on these images; empty for that row itself."),
    "difference_best_low": (
        F,
        "Lower end of its paired 95 % interval (Bonett & Price 2012). Above minus `margin`, the row counts as good as "
        "the best: a one-sided test of non-inferiority at 2.5 %.",
    ),
    "difference_best_high": (F, "Upper end of this interval."),
    "difference_told": (
        F,
        "The smallest difference from the most accurate row that McNemar's test on so many images tells with a power "
        "of 80 %, at the share of images that only one of the two got right (Connor 1987).",
    ),
    "margin": (F, "`--margin`: the loss of accuracy that still counts as good; 0.02 for rows that have none."),
    ADAPTED: (
        S,
        "What share of the test images a label was assumed to have, as `REAL=0.5`, to move the threshold until so many "
        "are called it (`--adapt`). Such a row saw the features of all test images, though no label, so it is set "
        "against no other row. Empty for all others.",
    ),
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
    "predicted": (S, "The label that the head predicted."),
    "p_real": (F, "P(REAL), or P of another positive label; empty for more than two labels without a positive one."),
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
        "P of each label, in the order of `labels`; where labels are held out, of each class of the test set, in the "
        "order of the results. A list, as JSON in the CSV.",
    ),
    "p_predicted": (F, "P(`predicted`)."),
    "p_label": (F, "P(`label`)."),
    ADAPTED: (S, "As in the results."),
}

AGAINST_BEST = ("difference_best", "difference_best_low", "difference_best_high", "difference_told")
"""How far a row is behind the most accurate one, and how far it would have to be for the images to tell."""

LATER = (
    *("log_loss", "top_calibration_error", "top5_accuracy", "p_best_corrected", "selection_bias", "harmonic_mean"),
    *("chosen_threshold", AT_THRESHOLD, f"{AT_THRESHOLD}_low", f"{AT_THRESHOLD}_high"),
    *("average_precision_low", "average_precision_high", "brier_low", "brier_high"),
    *("calibration_error_low", "calibration_error_high", "calibration_error_expected"),
    *AGAINST_BEST,
)
"""Figures that rows of earlier versions lack; they stay empty, though they could be computed."""

TIMES = ("embedding_seconds", "training_seconds", "fitting_seconds", "answer_ms")
"""What no other run repeats to the digit, and no prediction tells; as `created`."""

PREPARING = ("embedding_seconds", "training_seconds", "fitting_seconds")
"""Their sum is the time until a row can answer."""

SIZES = ["model", "pretrained", "train_per_label", "test_per_label"]
QUESTION = ["dataset", "labels", "split_by", *SIZES]
"""Columns that are equal in all comparisons of a study; `held_out`, `seed` and `images` differ among them."""

COMPARISON = [*QUESTION, "held_out", "seed", "images"]
"""Columns that are equal in all rows of a comparison."""

TEST = ["test", "perturbation", "test_data"]
"""Columns that identify a test set within a comparison."""

KEY = [*COMPARISON, "encoder", "recipe", "encoder_id", "head", "chosen_by", *TEST, ADAPTED]
"""Columns that identify a scored test set: new rows replace stored rows with an equal key."""


def ordinary(table: pl.DataFrame) -> pl.DataFrame:
    """The rows on the data's own unperturbed test images, base and novel, that are not adapted to them."""
    return table.filter(pl.all_horizontal(pl.col("perturbation", "test_data", ADAPTED).fill_null("") == ""))


def unadapted(table: pl.DataFrame) -> pl.DataFrame:
    """The rows that saw nothing of the test images; every figure, mean and choice is of these alone."""
    return table.filter(pl.col(ADAPTED).fill_null("") == "")


def of_one_design(table: pl.DataFrame) -> pl.DataFrame:
    """The rows whose training images were found in one way, for means over seeds: seed 0 takes the first, others draw.

    The draws, where a study has several and they held out as many values as seed 0; else seed 0, if it is there.
    """
    drawn, study = pl.col("seed") > 0, [*QUESTION, "study"]
    held_out = {first: pl.col("held_out").filter(drawn != first).n_unique().over(study) for first in (True, False)}
    several = pl.col("seed").filter(drawn).n_unique().over(study) > 1
    return table.filter(
        pl.when(several & (held_out[False] >= held_out[True])).then(drawn).otherwise(~drawn | (held_out[True] == 0))
    )


def brought_up_to_date(table: pl.DataFrame, wanted: dict[str, tuple[Kind, str]]) -> pl.DataFrame:
    """Add newer columns to a stored table: empty text, null numbers. A table with unknown columns is not changed.

    Version 1 had no columns for labels and images; `results.version_1` fills them in.
    """
    if "split_by" not in table.columns:
        table = table.with_columns(split_by=pl.lit("category"))
    if {"recipe", "head", "chosen_by"} <= set(table.columns):
        table = table.with_columns(_by_seen())
    new = [pl.lit("" if kind == S else None, dtype=kind).alias(name) for name, (kind, _) in wanted.items()]
    whole = table.with_columns(column for column in new if column.meta.output_name() not in table.columns)
    if set(whole.columns) != set(wanted):
        return table
    return with_probabilities(whole.select(list(wanted))) if wanted is PREDICTIONS else whole.select(list(wanted))


def _by_seen() -> pl.Expr:
    """`chosen_by` of trained heads on fine-tuned encoders, which earlier versions called `category` or `folds`."""
    trained = (pl.col("recipe").fill_null("") != "") & (pl.col("head") != "zero-shot")
    seen = trained & pl.col("chosen_by").is_in(["category", "folds"])
    return pl.when(seen).then(pl.col("chosen_by") + " (seen)").otherwise("chosen_by").alias("chosen_by")


def with_probabilities(predictions: pl.DataFrame) -> pl.DataFrame:
    """Fill `probabilities`, `p_predicted` and `p_label` of rows with two labels that lack them, as those of earlier
    versions do: they follow from `p_real`, which is P(second label) there."""
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
    """Names and types of columns, in order."""
    return {name: kind for name, (kind, _) in columns.items()}
