"""An image tower without text is fine-tuned with a trained vector a label, which starts from the probe."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from trees import cifake_files, coloured_files, write_folder

from toolkit import Study
from toolkit.cache.embedding import embed_images
from toolkit.cache.store import Cache
from toolkit.cli.main import cli
from toolkit.data.manifest import Dataset
from toolkit.data.sources import open_data
from toolkit.data.split import groups_of, select
from toolkit.encoders import nano, openclip
from toolkit.finetuning import checkpoints
from toolkit.finetuning.label_vectors import from_probe, of_unit_length
from toolkit.finetuning.recipes import RECIPES, Recipe
from toolkit.finetuning.search import Training, make
from toolkit.heads.base import unit
from toolkit.heads.logreg import LogisticProbe

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=3e-4)
LABELS = {"FAKE": ["FAKE"], "REAL": ["REAL"]}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tower") / "tower.safetensors"
    save_file({name: one for name, one in load_file(nano.WEIGHTS).items() if name.startswith("visual.")}, file)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), cifake_files(4, 2))


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return open_data(folder)


def load(tower: Path) -> openclip.OpenClip:
    return openclip.load(openclip.source("nano", str(tower), device="cpu"))


def training(tower: Path, dataset: Dataset, cache: Path, recipe: Recipe, progress=lambda *_: None) -> Training:  # noqa: ANN001
    base, train = load(tower), select(dataset, "cat", 12, 2).train
    embed_images(dataset, train, lambda: base, Cache(cache, base.record))
    return Training(base.record, lambda: load(tower), dataset, train, "cat", LABELS, recipe, cache, progress)


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("labels", [2, 3, 10])
def test_they_start_as_the_probe_without_intercept(labels: int) -> None:
    rng = np.random.default_rng(0)
    y = np.array([f"label {number:02d}" for number in np.arange(40 * labels) % labels])
    X = rng.normal(size=(len(y), 64)) + 2 + rng.normal(size=(labels, 64))[np.arange(len(y)) % labels] / 4
    recipe = replace(RECIPE, temperature=0.5)
    names, vectors = from_probe(X.astype(np.float32), y, None, recipe)
    assert names.tolist() == sorted(set(y)) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    C = LogisticProbe().fit(X.astype(np.float32), y).choice_["C"]
    plain = LogisticRegression(C=C, fit_intercept=False, max_iter=5000).fit(unit(X), y).decision_function(unit(X))
    logits = unit(X) @ vectors.T / recipe.temperature
    ours = logits[:, 1] - logits[:, 0] if labels == 2 else logits - logits.mean(axis=1, keepdims=True)
    theirs = plain if labels == 2 else plain - plain.mean(axis=1, keepdims=True)
    factor = float((ours * theirs).sum() / (theirs**2).sum())
    assert 0 < factor < 1 + 1e-3
    assert np.allclose(ours, factor * theirs, atol=2e-3 * np.abs(ours).max())


def test_a_shared_part_makes_them_unit_vectors_and_no_softmax_sees_it() -> None:
    rng = np.random.default_rng(0)
    X, vectors = unit(rng.normal(size=(20, 8))), rng.normal(size=(4, 8)) / 10
    made = of_unit_length(vectors, X.mean(axis=0))
    assert np.allclose(np.linalg.norm(made, axis=1), 1)
    assert np.allclose(softmax(X @ made.T), softmax(X @ vectors.T))


@pytest.mark.parametrize("loss", ["contrastive", "supervised", "prompts"])
def test_the_loss_falls_and_the_vectors_are_trained(loss: str, tower: Path, dataset: Dataset, tmp_path: Path) -> None:
    asked = training(tower, dataset, tmp_path, replace(RECIPE, loss=loss))
    start = asked.start(asked.train).embed_prompts(["FAKE", "REAL"])
    made = make(asked)
    assert made.record.losses[-1] < made.record.losses[0]
    tuned = checkpoints.load_finetuned(made, load(tower).source)
    assert tuned.record.has_label_vectors and tuned.record.trained_on.recipe.endswith("label-vectors")
    assert not np.allclose(tuned.embed_prompts(["FAKE", "REAL"]), start)
    with pytest.raises(NotImplementedError, match="a photo"):
        tuned.embed_prompts(["a photo"])


class Killed(BaseException):
    """Stands for the process dying."""


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPES["robust"], epochs=3, batch_size=8)], ids=["study", "robust"]
)
def test_killed_it_goes_on_to_the_weights_of_an_undisturbed_run(
    tower: Path, dataset: Dataset, tmp_path: Path, recipe: Recipe
) -> None:
    def die(stage: str, done: int, total: int) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        make(training(tower, dataset, tmp_path / "cut", recipe, die))
    steps: list[int] = []
    resumed = make(training(tower, dataset, tmp_path / "cut", recipe, lambda _, done, __: steps.append(done)))
    whole = make(training(tower, dataset, tmp_path / "whole", recipe))
    assert steps[0] == 4, "it should go on behind its first epoch of three steps"
    ours, theirs = checkpoints.weights(resumed), checkpoints.weights(whole)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    assert resumed.record.losses == pytest.approx(whole.record.losses, abs=1e-6)


def test_each_label_keeps_its_own_vector_whatever_order_labels_are_named_in(
    tower: Path, dataset: Dataset, tmp_path: Path
) -> None:
    reverse = replace(training(tower, dataset, tmp_path, RECIPE), prompts={"REAL": ["REAL"], "FAKE": ["FAKE"]})
    start = unit(reverse.start(reverse.train).embed_prompts(["FAKE", "REAL"]))
    tuned = unit(checkpoints.load_finetuned(make(reverse), load(tower).source).embed_prompts(["FAKE", "REAL"]))
    assert np.diagonal(start @ tuned.T).min() > 0.9 > (start @ tuned.T)[0, 1]


def test_interpolated_the_label_vectors_lie_between_the_probes_and_the_trained_ones(
    tower: Path, dataset: Dataset, tmp_path: Path
) -> None:
    half = training(tower, dataset, tmp_path, replace(RECIPE, epochs=1, alpha=0.5))
    start = half.start(half.train).embed_prompts(["FAKE"])
    mixed, whole = (make(replace(half, recipe=replace(half.recipe, alpha=alpha))) for alpha in (0.5, 1.0))
    vectors = [checkpoints.load_finetuned(one, load(tower).source).embed_prompts(["FAKE"]) for one in (mixed, whole)]
    assert np.allclose(vectors[0], (start + vectors[1]) / 2, atol=1e-6)


def test_what_is_left_out_in_choosing_is_not_in_the_probe_either(tower: Path, dataset: Dataset, tmp_path: Path) -> None:
    asked = training(tower, dataset, tmp_path, RECIPE)
    part = asked.train.filter(pl.col("group") != asked.train["group"][0])
    X = Cache(tmp_path, asked.base).read_images(part["sha256"].to_list())
    _, expected = from_probe(X, part["label"].to_numpy(), groups_of(part), RECIPE)
    assert np.allclose(asked.start(part).embed_prompts(["FAKE", "REAL"]), expected)


def test_from_the_command_line_its_row_says_that_there_is_no_prompt(tower: Path, folder: Path, tmp_path: Path) -> None:
    shared = ["--data", str(folder), "--model", "nano", "--pretrained", str(tower)]
    shared += ["--train-per-label", "12", "--test-per-label", "2"]
    shared += ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    for command in (
        ["finetune", "--epochs", "2", "--batch-size", "8", "--choose"],
        ["compare", "--heads", "zero-shot,logreg"],
    ):
        done = CliRunner().invoke(cli, [*command, *shared])
        assert done.exit_code == 0, done.output
    rows = pl.read_csv(tmp_path / "results" / "results.csv").unique(["encoder", "head"])
    assert set(rows.select("encoder", "head").rows()) == {
        ("base", "logreg"),
        ("finetuned", "logreg"),
        ("finetuned", "zero-shot"),
    }
    tuned = rows.filter(head="zero-shot").row(0, named=True)
    assert "label-vectors" in tuned["recipe"] and "a trained vector a label" in tuned["choice"]
    image = next(folder.rglob("test/REAL/*"))
    options = ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache"), "--head", "zero-shot"]
    done = CliRunner().invoke(cli, ["predict", str(image), *options])
    assert done.exit_code == 0 and "REAL" in done.output, done.output


def test_in_the_library_it_has_vectors_of_the_labels_that_trained_where_others_are_held_out(
    tower: Path, tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data", coloured_files(["ant", "bee", "cow", "dog"], 3, 2))
    places = {"cache": tmp_path / "cache", "results": tmp_path / "results"}
    study = Study(data, "nano", split="half", by="label", pretrained=str(tower), device="cpu", **places)
    assert set(study.finetune(epochs=1, batch_size=4).prompts) == {"ant", "bee"}
