"""The toolkit as a library: its public names, arrays that are what they say, and the same figures as the commands."""

import doctest
import importlib
import inspect
import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from folders import without_times
from places import ROOT
from trees import cifake_files, write_folder

import toolkit
from toolkit import Study, ToolkitError
from toolkit.cli import main as cli
from toolkit.data.images import decode


def test_the_public_names_are_these_and_each_can_be_had() -> None:
    names = ["HEADS", "RECIPES", "Embeddings", "LogisticProbe", "NearestNeighbours", "Recipe", "Study", "ToolkitError"]
    names += ["Vectors", "ZeroShot", "load_encoder", "make_head", "make_recipe", "open_data", "read_results"]
    assert toolkit.__all__ == names
    for name in names:
        assert getattr(toolkit, name) is not None and name in dir(toolkit)
    with pytest.raises(AttributeError):
        toolkit.no_such_name  # noqa: B018


def test_importing_the_toolkit_imports_nothing_heavy_and_opening_data_needs_no_torch() -> None:
    code = (
        "import sys, toolkit\n"
        "print(sorted({'numpy', 'polars', 'torch', 'sklearn', 'open_clip'} & set(sys.modules)))\n"
        "from toolkit import Study, LogisticProbe, open_data, read_results\n"
        "print(sorted({'torch', 'open_clip', 'faiss', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("library")
    write_folder(home / "cifake", cifake_files(8, 6))
    return home


@pytest.fixture(scope="module")
def study(home: Path) -> Study:
    sizes = {"train_per_label": 12, "test_per_label": 5}
    return Study(home / "cifake", model="nano", split="cat", cache=home / "cache", results=home / "results", **sizes)


def test_embeddings_are_the_encoders_own_vectors_row_by_row(study: Study) -> None:
    vectors = study.embed()
    for part in (vectors.train, vectors.base, vectors.novel):
        assert part.X.dtype == np.float32 and part.X.shape == (len(part.y), study.encoder.dimension)
        pixels = [study.encoder.preprocess(decode(study.plan.dataset.read(path))) for path in part.images["path"]]
        assert np.allclose(part.X, study.encoder.embed_images(np.stack(pixels)), atol=1e-5)
        assert part.y.tolist() == [path.split("/")[1] for path in part.images["path"]]
    assert set(vectors.novel.categories) == {"cat"} and "cat" not in {
        *vectors.train.categories,
        *vectors.base.categories,
    }
    assert np.allclose(vectors.prompts["REAL"], study.encoder.embed_prompts(study.plan.prompts["REAL"]), atol=1e-5)


def test_heads_are_scikit_learn_classifiers_on_these_arrays(study: Study) -> None:
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    vectors = study.embed()
    probe = clone(toolkit.LogisticProbe("folds", grid=(1.0, 10.0)))
    assert len(cross_val_score(probe, vectors.train.X, vectors.train.y, cv=3)) == 3
    head = toolkit.make_head("zero-shot", vectors.prompts).fit(vectors.train.X, vectors.train.y)
    assert set(head.predict(vectors.base.X)) <= {"FAKE", "REAL"}


def test_fine_tuning_gives_another_encoders_vectors_of_the_same_images(study: Study) -> None:
    before, after = study.embed(), study.finetune(epochs=1, batch_size=8)
    assert after.encoder.name == "finetuned" and after.encoder.trained_on.held_out == "cat"
    assert after.train.images.equals(before.train.images) and not np.allclose(after.train.X, before.train.X, atol=1e-3)
    again = study.finetune(epochs=1, batch_size=8)
    assert again.encoder == after.encoder and (again.novel.X == after.novel.X).all()


def test_compare_is_the_same_frame_as_the_commands(study: Study, home: Path) -> None:
    study.finetune(epochs=1, batch_size=8)
    mine = without_times(study.compare())
    words = ["--data", home / "cifake", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    done = CliRunner().invoke(
        cli.cli, ["compare", *map(str, words), "--train-per-label", "12", "--test-per-label", "5"]
    )
    assert done.exit_code == 0, done.output
    default = next(option.default for option in cli.cli.commands["compare"].params if option.name == "heads")
    theirs = without_times(toolkit.read_results(home / "results")[0])
    assert inspect.signature(study.compare).parameters["heads"].default == tuple(default.split(","))
    assert isinstance(mine, pl.DataFrame) and mine.equals(theirs, null_equal=True)


def test_a_study_of_several_categories_gives_each_ones_vectors(home: Path) -> None:
    places = {"cache": home / "cache", "results": home / "results"}
    both = Study(home / "cifake", "nano", ["cat", "dog"], train_per_label=12, test_per_label=5, **places)
    assert set(both.embed("dog").novel.categories) == {"dog"} and both.embed().held_out == "cat"
    with pytest.raises(ToolkitError, match="holds out cat, dog, not 'bird'"):
        both.embed("bird")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Study("no/such/place"), "no/such/place"),
        (lambda: Study(model="nano", split="unicorn").embed(), "astronaut"),
        (lambda: Study(model="nano", labels=["REAL", "FAKES"]), "FAKE"),
        (lambda: Study(model="nano", prompts={"REEL": "A photo."}), "Did you mean REAL"),
        (lambda: toolkit.make_recipe("studdy"), "Did you mean study"),
        (lambda: toolkit.make_recipe(epoch=3), "Did you mean epochs"),
        (lambda: toolkit.load_encoder("ViT-B-23"), "ViT-B-32"),
    ],
)
def test_what_the_caller_can_mend_is_a_toolkit_error_that_says_how(call: object, says: str) -> None:
    with pytest.raises(ToolkitError, match=says):
        call()  # type: ignore[operator]


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(ROOT / "examples/first_look.py"))
    assert len(names["table"]) == 2 * 3 * 2 * 3
    assert "C = " in capsys.readouterr().out and (tmp_path / "results/results.xlsx").exists()


def test_the_examples_in_docstrings_are_true() -> None:
    modules = [one.name for one in pkgutil.walk_packages(toolkit.__path__, "toolkit.")]
    results = [doctest.testmod(importlib.import_module(name)) for name in modules]
    assert sum(result.failed for result in results) == 0 and sum(result.attempted for result in results) > 5
