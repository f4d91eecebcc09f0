"""Six labels, from the folder to the answer: every command, and the library, take them as they take two."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from sklearn import metrics as reference
from trees import coloured_files, write_folder

from toolkit import Study
from toolkit.cli.main import cli
from toolkit.prediction import kept_heads

LABELS = ["ant", "bee", "cow", "doe", "elk", "fox"]
HEADS = "zero-shot,logreg,knn,shortcut"


def call(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("several")
    write_folder(home / "data", coloured_files(LABELS, 10, 3))
    (home / "names.json").write_text(json.dumps({label: f"kind of {label}" for label in LABELS}))
    for command in (["embed"], ["finetune", "--epochs", 1, "--recipe", "robust"], ["compare", "--heads", HEADS]):
        done = call(*command, *options(home))
        assert done.exit_code == 0, done.output
    return home


def options(home: Path) -> list[object]:
    words = ["--data", home / "data", "--model", "nano", "--template", "a photo of a {}.", "--template", "one {}"]
    return [*words, "--names", home / "names.json", *places(home)]


def places(home: Path) -> list[object]:
    return ["--cache", home / "cache", "--results", home / "results"]


def odds_of(rows: pl.DataFrame) -> np.ndarray:
    return np.array(rows["probabilities"].to_list())


def test_the_table_says_what_scikit_learn_says_of_the_predictions(home: Path) -> None:
    table, predictions = (pl.read_parquet(home / f"results/{name}.parquet") for name in ("results", "predictions"))
    assert set(table["encoder"]) == {"base", "finetuned", "file facts"}
    assert set(table["class"]) == {*LABELS, "all"} and set(predictions["labels"]) == {json.dumps(LABELS)}
    of_all = table.filter(pl.col("class") == "all")
    for (encoder, head), rows in predictions.group_by("encoder", "head"):
        row = of_all.filter(pl.col("encoder") == encoder, pl.col("head") == head).row(0, named=True)
        odds, y = odds_of(rows), rows["label"].to_numpy()
        assert np.allclose(odds.sum(axis=1), 1) and rows["p_real"].null_count() == len(rows)
        assert rows["predicted"].to_list() == [LABELS[number] for number in odds.argmax(axis=1)]
        assert np.allclose(rows["p_predicted"], odds.max(axis=1))
        assert np.allclose(rows["p_label"], odds[np.arange(len(y)), [LABELS.index(label) for label in y]])
        assert row["accuracy"] == pytest.approx(reference.accuracy_score(y, rows["predicted"]))
        assert row["log_loss"] == pytest.approx(reference.log_loss(y, odds, labels=LABELS))
        assert row["roc_auc"] == pytest.approx(reference.roc_auc_score(y, odds, multi_class="ovr", labels=LABELS))
        assert row["top5_accuracy"] is not None


def test_the_results_follow_from_the_predictions_and_are_shown_in_one_line_a_head(home: Path) -> None:
    assert call("verify-results", "--results", home / "results").exit_code == 0
    shown = call("compare", *options(home), "--heads", "zero-shot,logreg").output
    assert "Macro F1" in shown and "Log loss" in shown and "elk prec." not in shown
    wide = pl.read_excel(io.BytesIO((home / "results/results.xlsx").read_bytes()), sheet_name="Results")
    assert set(LABELS) <= set(wide["class"])


def test_prompts_are_the_templates_with_the_names(home: Path) -> None:
    study = Study(
        home / "data",
        "nano",
        templates=["a photo of a {}.", "one {}"],
        names=home / "names.json",
        cache=home / "cache",
        results=home / "library",
    )
    assert study.plan.prompts["elk"] == ["a photo of a kind of elk.", "one kind of elk"]
    made = study.embed()
    assert set(made.train.y) == set(LABELS) and made.prompts["elk"].shape == (2, made.train.X.shape[1])
    again = study.compare(["zero-shot"]).filter(pl.col("class") == "all", pl.col("encoder") == "base")
    known = pl.read_parquet(home / "results/results.parquet").filter(
        pl.col("class") == "all", pl.col("encoder") == "base", pl.col("head") == "zero-shot"
    )
    assert again["log_loss"].to_list() == pytest.approx(known["log_loss"].to_list())


def test_predict_gives_each_label_its_probability(home: Path) -> None:
    known = pl.read_parquet(home / "results/predictions.parquet").filter(
        pl.col("encoder") == "base", pl.col("head") == "logreg"
    )
    paths = [home / "data" / path for path in known["path"]]
    words = [*paths, *places(home), "--encoder", "base", "--head", "logreg"]
    found = json.loads(call("predict", *words, "--json").stdout)
    assert [one["label"] for one in found] == known["predicted"].to_list()
    assert all(list(one["probabilities"])[0] == one["label"] and one["p_real"] is None for one in found)
    mine = [[one["probabilities"][label] for label in LABELS] for one in found]
    np.testing.assert_allclose(mine, odds_of(known), atol=1e-5)
    table = pl.read_csv(io.StringIO(call("predict", *words, "--csv").stdout))
    assert table["label_1"].to_list() == known["predicted"].to_list()
    np.testing.assert_allclose(table["p_1"], known["p_predicted"], atol=1e-5)
    assert (table["p_1"] >= table["p_2"]).all() and (table["p_2"] >= table["p_3"]).all()
    shown = " ".join(call("predict", *words).stdout.split())
    assert f"{paths[0]} {found[0]['label']} {known['p_predicted'][0]:.3f} {table['label_2'][0]} " in shown


def test_a_line_keeps_the_recall_of_any_label_and_alpha_leaves_labels_open(home: Path) -> None:
    words = [home / "data/test", *places(home), "--encoder", "base", "--head", "logreg", "--json"]
    plain, kept = (call("predict", *words, *more) for more in ([], ["--recall", "elk=0.9"]))
    assert "--recall elk=0.9: another label only where the others' P together is above" in kept.stderr
    before, after = ([one["label"] for one in json.loads(done.stdout)] for done in (plain, kept))
    assert all(new in (old, "elk") for old, new in zip(before, after, strict=True))
    line = float(kept.stderr.partition("together is above ")[2].split(",")[0])
    for one in json.loads(kept.stdout):
        others = [(p, label) for label, p in one["probabilities"].items() if label != "elk"]
        assert one["label"] == (max(others)[1] if 1 - one["probabilities"]["elk"] > line else "elk")
    unsure = json.loads(call("predict", *words, "--alpha", 0.4).stdout)
    assert all((one["label"] is None) == (len(one["open"]) != 1) for one in unsure)
    for wrong, said in ((["--recall", "emu=0.9"], "no label 'emu'"), (["--recall", "elk"], "LABEL=SHARE")):
        done = call("predict", *words, *wrong)
        assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert "knows no label 'FAKE'" in call("predict", *words, "--fake-recall", 0.9).stderr


def test_where_labels_are_held_out_predict_measures_and_calibrates_on_those_that_trained(
    home: Path, tmp_path: Path
) -> None:
    held_out = ["--split-by", "label", "--split", "half", "--train-per-label", 6, "--results", tmp_path]
    assert call("compare", *options(home), *held_out, "--heads", "zero-shot,logreg").exit_code == 0
    some = call("embed", *options(home), *held_out, "--labels", "doe,cow,bee,ant,elk").output
    assert "2 of 5 labels are held out: doe, elk." in some
    images = [home / "data/test", "--cache", home / "cache", "--results", tmp_path, "--json"]
    fresh = ["--recall", "bee=0.5", "--calibrate", home / "data"]
    for head in ("zero-shot", "logreg"):
        for rule in (["--alpha", 0.5], ["--recall", "bee=0.5"], fresh):
            done = call("predict", *images, "--encoder", "base", "--head", head, *rule)
            assert done.exit_code == 0, done.output
            assert "measured on 9 base test images" in done.stderr and "novel" not in done.stderr
            assert {label for one in json.loads(done.stdout) for label in one["open"]} <= {"ant", "bee", "cow"}
            assert rule is not fresh or "chosen on 12 images of data that nothing was trained on" in done.stderr
    accuracy = {one.record.head: one.record.tests for one in kept_heads.find(tmp_path / kept_heads.FOLDER)}
    assert {tuple(tests) for tests in accuracy.values()} == {("base",)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "ant"], "--labels names ant alone"),
        (["--labels", "ant,ant"], "names 'ant' twice"),
        (["--labels", "ant,emu"], "no label 'emu'"),
        (["--template", "a photo"], "holds no {}"),
        (["--names", "gone.csv"], "gone.csv"),
        (["--prompt", "emu=a bird"], "none of the labels"),
    ],
)
def test_what_cannot_be_told_apart_is_one_line(home: Path, words: list[str], said: str) -> None:
    done = call("embed", "--data", home / "data", "--model", "nano", *places(home), *words)
    assert done.exit_code == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
