"""The options that commands share. `plans` makes plans and recipes from their values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from toolkit.cli.declare import A_PATH, ABOVE_0, Command, chosen, option, options, section

as_json = section("Output", option("--json", "as_json", is_flag=True, help="Print facts as JSON on standard output."))
place_options = section(
    "Places",
    option("--cache", type=A_PATH, default=Path("cache"), show_default=True, help="Embeddings and checkpoints."),
    option("--results", type=A_PATH, default=Path("results"), show_default=True, help="Where tables are written."),
)
data_option = section(
    "Data",
    option(
        "--data",
        type=click.Path(),
        metavar="PATH",
        help="CIFAKE as folder or zip, folders split/label/category/, tar shards, a CSV or Parquet of paths; here or "
        "at an address (s3://, gs://, https://); a Hugging Face data set (folder, Parquet, hf:OWNER/NAME).  "
        "[default: data/cifake, data/cifake.zip, else the built-in sample]",
    ),
)
LAYOUT = (
    option(
        "--layout",
        metavar="FOLDERS",
        help="What the folders mean, as in {split}/{generator}/{category}/{label}; * stands for any name.  "
        "[default: found by what they are called]",
    ),
    option(
        "--columns",
        metavar="A=B,…",
        help="A table's columns for path, label, split and category, as in path=file,label=kind.  "
        "[default: found by what they are called]",
    ),
)
layout_options = section("Data", *LAYOUT)
reading_options = section(
    "Data",
    *LAYOUT,
    option(
        "--test-share",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="Draw this share of the images as test split, by their content, if the data has none.",
    ),
    option(
        "--equalise",
        metavar="STEP,STEP",
        help="Change every picture alike before anything sees it, train and test: side:PIXELS (the shorter side), "
        "crop:PIXELS (the central square), jpeg:QUALITY, or a KIND:AMOUNT of --perturb, in this order, as in "
        "side:224,jpeg:95.",
    ),
)
data_options = section(
    "Data",
    data_option,
    reading_options,
    option("--labels", metavar="A,B,…", help="The labels to tell apart, two or more.  [default: all of the data's]"),
    option(
        "--positive",
        metavar="LABEL",
        help="The label whose probability is reported.  [default: of two, the one that says real, else the second]",
    ),
    option(
        "--prompt",
        "prompts",
        multiple=True,
        metavar="LABEL=TEXT",
        help="A label's prompt; repeat it for several, which are averaged.  [default: --template, else the study's]",
    ),
    option(
        "--template",
        "templates",
        multiple=True,
        metavar="TEXT",
        help="A prompt of every label, as 'a photo of a {}.'; repeat it for several, which are averaged. Or published "
        "ones: openai-imagenet, openai-imagenet-simple, openai-cifar.",
    ),
    option(
        "--names",
        type=A_PATH,
        metavar="FILE",
        help="What the labels are called in prompts: a CSV, TSV or JSON from label to name.  [default: as they are]",
    ),
    option(
        "--split",
        multiple=True,
        metavar="VALUE",
        help="The values to hold out of training and score as novel: one (cat), several, each in its turn (cat,dog), "
        "all, or none.  [default: cat in CIFAKE and the sample, else none]",
    ),
    option(
        "--split-by",
        "by",
        metavar="COLUMN",
        default="category",
        show_default=True,
        help="The column with the values named by --split, such as generator or camera; label holds out whole "
        "labels, as --split half.",
    ),
    option(
        "--train-per-label",
        type=click.IntRange(2),
        default=450,
        show_default=True,
        help="Train on the first N of each label.",
    ),
    option(
        "--shots",
        metavar="1,2,4,…",
        help="Train on so many of each label, each in its turn, in place of --train-per-label: learning curves.",
    ),
    option(
        "--test-per-label",
        type=click.IntRange(1),
        default=100,
        show_default=True,
        help="Test on the first N of each label.",
    ),
    option("--full", is_flag=True, help="Every image instead of the first N."),
    option("--keep-leaks", is_flag=True, help="Keep test images whose bytes are in the training set."),
    option("--drop-near-copies", is_flag=True, help="Leave out test images that are near copies of a training image."),
    option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Seed. 0 takes the first N training images; others draw N at random.",
    ),
    option(
        "--seeds",
        type=click.IntRange(1),
        metavar="N",
        help="Repeat for the seeds 1 to N, which all draw, and show mean and spread.  [default: --seed alone]",
    ),
)
model_options = section(
    "Model",
    option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME",
        help="nano, one of open_clip's, timm:NAME, hf-hub:OWNER/NAME, or local-dir:FOLDER; repeat it for several.  "
        "[default: ViT-B-32; sample: nano]",
    ),
    option(
        "--pretrained",
        multiple=True,
        metavar="TAG|FILE",
        help="Weights: a tag of open_clip's or a file; with several models one for each, in their order, or one for "
        "all.  [default: the model's best known]",
    ),
    chosen("device", "auto", "Where the model runs."),
    chosen(
        "precision",
        "fp32",
        "The model's arithmetic. Faster: bf16 where the hardware has it; int8 for transformers on other processors.",
    ),
)
plan_options = options(data_options, model_options, place_options)
recipe_options = section(
    "Recipe",
    option(
        "--recipe",
        metavar="NAME",
        default="study",
        show_default=True,
        help="study, or robust: augmented, averaged, with the prompts as classes. On new categories robust is better "
        "for nano and was not for ViT-B/16.",
    ),
    option("--epochs", type=click.IntRange(1), help="Passes over the images.  [default: the recipe's; study: 5]"),
    option("--batch-size", type=click.IntRange(2), help="Images a step.  [default: the recipe's; study: 32]"),
    option("--lr", "learning_rate", type=ABOVE_0, help="Learning rate.  [default: 1e-5; nano: 3e-4]"),
    option("--temperature", type=ABOVE_0, help="Temperature of the loss; lower is sharper.  [default: 0.07]"),
    chosen(
        "loss",
        None,
        "Positives: the image's own caption (contrastive), every equal caption (supervised), or one prompt per class "
        "(prompts).",
    ),
    option(
        "--augment",
        metavar="A,B",
        help="flip, shift: augmentations that leave pixel values unchanged.  [default: the recipe's]",
    ),
    option(
        "--alpha",
        type=click.FloatRange(0, 1),
        help="Interpolate between base weights (0) and fine-tuned weights (1: default).",
    ),
    option(
        "--choose",
        is_flag=True,
        help="First choose epochs, alpha and the calibration of probabilities, with three smaller trainings.",
    ),
)
FEATURES = {"last": None, "blocks": "blocks", "patches": "patches"}
"""The values of --features, and what each embeds of the inside of the image tower."""


def features_option(default: str | None = "last", by_default: str = "last") -> Callable[[Command], Command]:
    """`--features`; `by_default` says what is embedded without it."""
    return option(
        "--features",
        type=click.Choice([*FEATURES]),
        default=default,
        help="What to embed for probes. last: the last layer alone. blocks: also the class token of each block inside "
        "the image tower; compare then adds their rows. patches: these and the mean of each block's patches.  "
        f"[default: {by_default}]",
    )


choose_by_option = chosen(
    "choose-by",
    "category",
    "How C, k, epochs and so on are chosen: by leaving out training categories, or by random folds.",
)
head_options = section(
    "Heads",
    option(
        "--heads",
        default="zero-shot,logreg,layer-probes,knn,shortcut",
        metavar="A,B,…",
        show_default=True,
        help="Which heads to compare; also lda, tip-adapter, clap, cnn.",
    ),
    choose_by_option,
)
A_MARGIN = click.FloatRange(0, 1)
margin_option = section(
    "Heads",
    option(
        "--margin",
        type=A_MARGIN,
        default=0.02,
        show_default=True,
        help="The loss of accuracy that still counts as good: ≈ in the tables, the words of the page, and what "
        "compare --gate lets pass.",
    ),
)
beyond_options = section(
    "Other test images",
    option(
        "--perturb",
        multiple=True,
        metavar="KIND:AMOUNT",
        help="Also score perturbed test images; repeat it for several. jpeg:QUALITY, blur:RADIUS, resize:FACTOR, "
        "noise:DEVIATION, as in jpeg:75.",
    ),
    option(
        "--test-data",
        metavar="PATH",
        help="Score another data set's test images as well (all of it, if it names no split). It has the same labels, "
        "and is read with --layout and --columns where they fit.",
    ),
    option(
        "--adapt",
        is_flag=True,
        help="Also score two labels with the threshold moved by the unlabelled test images, in rows of their own.",
    ),
    option(
        "--share",
        metavar="LABEL=SHARE",
        help="The share of the test images that --adapt assumes of a label, as in REAL=0.3.  [default: a half]",
    ),
    option("--real-share", type=float, metavar="SHARE", help="The same of the label that says real."),
)


@click.command()
@plan_options
def _shared(**_: Any) -> None:
    """Collects the options of every command on a plan."""


SHARED = {name for parameter in _shared.params for name in parameter.opts if name.startswith("--")}
"""The options that every command on a plan takes."""
