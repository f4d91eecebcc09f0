"""How a study was run: the commands and settings that reproduce it."""

import shlex
from collections.abc import Mapping
from typing import Any

import polars as pl

from toolkit.encoders.record import INSIDE
from toolkit.results.entrants import Subject

FLAGS = {
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "learning_rate": "--lr",
    "temperature": "--temperature",
    "loss": "--loss",
    "augment": "--augment",
    "alpha": "--alpha",
    "choose_by": "--choose-by",
}

ENCODER = ("encoder", "recipe", "encoder_id")

NAMES = {
    "data": "Data",
    "model": "Model",
    "prompts": "Prompts",
    "images": "Images",
    "machine": "Machine",
    "versions": "Versions",
    "code_version": "Toolkit",
    "data_hash": "Hash of the images and labels",
    "config_hash": "Hash of the settings",
    "encoders": "Hash of each encoder",
    "seed": "Seeds",
    "created": "When",
}


def how(shown: Subject, detail: pl.DataFrame, noted: Mapping[str, Any]) -> dict[str, Any]:
    """The commands and settings, for the template. `noted` is what `run_records.note` kept of the comparison."""
    row = detail.row(0, named=True)
    encoders = detail.unique("encoder_id", maintain_order=True).iter_rows(named=True)
    facts = {
        "data": shown.about["dataset"],
        "model": f"{row['model']}, weights {row['pretrained']}, {noted.get('precision', '')}".rstrip(", "),
        "prompts": "; ".join(f"{label}: {' | '.join(texts)}" for label, texts in noted.get("prompts", {}).items()),
        "images": _images(shown, detail),
        "seed": ", ".join(map(str, shown.seeds)),
        "code_version": row["code_version"],
        "versions": ", ".join(f"{name} {version}" for name, version in noted.get("versions", {}).items()),
        "machine": noted.get("machine", ""),
        "data_hash": row["data_hash"],
        "config_hash": row["config_hash"],
        "encoders": ", ".join(" ".join(filter(None, (one[name] for name in ENCODER))) for one in encoders),
        "created": f"{row['created']} UTC",
    }
    known = {name: value for name, value in facts.items() if value}
    return {"how": known, "how_names": NAMES, "commands": commands(shown.table, noted), "asked": noted.get("asked", "")}


def _images(shown: Subject, detail: pl.DataFrame) -> str:
    asked = [shown.about["train_per_label"], shown.about["test_per_label"]]
    most = [f"at most {count:,}" if count else "all" for count in asked]
    leaks = detail["leaks_dropped"].to_list()[0]
    return f"of each label {most[0]} to train and {most[1]} to test; leaks removed: {leaks}"


def commands(table: pl.DataFrame, noted: Mapping[str, Any]) -> list[str]:
    """The command lines to type: `run` alone, or what `compare` needs before it."""
    typed, asked = str(noted.get("command", "")), str(noted.get("asked", ""))
    if not typed:
        return []
    install = "pip install -e ."
    if typed.startswith("python cli.py run"):
        return [install, typed]
    encoders = set(table.select("encoder", "recipe").iter_rows())
    recipes = [recipe for recipe in table["recipe"].unique(maintain_order=True) if recipe]
    embedding = _each_inside(f"python cli.py embed {asked}", {name for name, _ in encoders})
    training = [
        line
        for recipe in recipes
        for line in _each_inside(
            f"python cli.py finetune {asked} {recipe_words(recipe)}",
            {name.removeprefix("finetuned ") for name, of in encoders if of == recipe},
        )
    ]
    return [install, *embedding, *training, typed]


def _each_inside(command: str, names: set[str]) -> list[str]:
    """The command, once for each kind of probes inside the tower among the encoders' names."""
    features = [f" --features {sees}" for sees in INSIDE if sees in names] or [""]
    return [f"{command.strip()}{one}" for one in features]


def recipe_words(label: str) -> str:
    """A recipe's name in the results (`study epochs=2`) as options of `finetune`; `study` alone needs none."""
    name, *changes = label.split(" ")
    words = [] if name == "study" else ["--recipe", name]
    for change in changes:
        field, _, value = change.partition("=")
        words += ["--choose"] if change == "chosen" else []
        if field in FLAGS:
            words += [FLAGS[field], value]
    return shlex.join(words)
