"""`predict`: images of the user's own, answered by the best saved head."""

import hashlib
import io
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sklearn
from click.testing import CliRunner, Result
from fakes import FakeEncoder
from safetensors.numpy import save
from sklearn.linear_model import LogisticRegression
from trees import cifake_files, jpeg, write_folder, write_zip

from toolkit.cache.store import Cache
from toolkit.cli import main as cli
from toolkit.cli import predicted
from toolkit.data.labels import Labels
from toolkit.data.sources.loose import open_loose
from toolkit.encoders.record import Sees, TrainedOn
from toolkit.errors import EncoderError, ResultsError
from toolkit.heads import HEADS, WORDS, head_class, make_head, stored
from toolkit.prediction import calibration, copies, kept_heads, pick
from toolkit.prediction import predict as predicting
from toolkit.prediction.kept_heads import HeadRecord
from toolkit.prediction.predict import Request, load_again
from toolkit.prediction.predict import predict as predict_images
from toolkit.storage.records import as_plain, read_record, write_record

ON_EMBEDDINGS = [name for name in HEADS if Sees.LAST_LAYER in head_class(name).reads]


def call(*words: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli.cli, [str(word) for word in words], input=stdin)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CIFAKE that was embedded, fine-tuned for one epoch and compared."""
    home = tmp_path_factory.mktemp("study")
    write_folder(home / "cifake", cifake_files(10, 6))
    result = call(
        "run",
        *options(home),
        "--epochs",
        1,
        "--batch-size",
        8,
        "--features",
        "blocks",
        "--heads",
        ",".join(ON_EMBEDDINGS),
    )
    assert result.exit_code == 0, result.output
    return home


def options(home: Path) -> list[object]:
    sizes = ["--train-per-label", "24", "--test-per-label", "8", "--model", "nano"]
    return ["--data", home / "cifake", *places(home), *sizes]


def places(home: Path) -> list[object]:
    return ["--cache", home / "cache", "--results", home / "results"]


def objects(home: Path, *words: object) -> list[dict]:
    result = call("predict", *words, *places(home), "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


ON_BLOCKS = [("blocks", name) for name in ON_EMBEDDINGS if not head_class(name).needs_prompts]
ON_LAST_LAYER = [(encoder, name) for encoder in ("base", "finetuned") for name in ON_EMBEDDINGS]


@pytest.mark.parametrize(("encoder", "head"), [*ON_LAST_LAYER, *ON_BLOCKS])
def test_a_test_image_gets_the_very_probability_that_compare_gave_it(study: Path, encoder: str, head: str) -> None:
    known = pl.read_csv(study / "results/predictions.csv").filter(
        (pl.col("encoder") == encoder) & (pl.col("head") == head)
    )
    assert len(known) == 28
    paths = [study / "cifake" / path for path in known["path"]]
    found = objects(study, *paths, "--encoder", encoder, "--head", head)
    assert [list(one)[:3] for one in found] == [["path", "label", "p_real"]] * len(found)
    assert [one["path"] for one in found] == [str(path) for path in paths]
    assert [one["label"] for one in found] == known["predicted"].to_list()
    np.testing.assert_allclose([one["p_real"] for one in found], known["p_real"], atol=1e-5)


def test_the_default_is_the_head_with_the_lowest_log_loss_on_left_out_categories(study: Path) -> None:
    table = pl.read_csv(study / "results/results.csv").filter((pl.col("class") == "all") & (pl.col("test") == "novel"))
    base = table.filter(pl.col("encoder").is_in(["base", "blocks"]))
    losses = {
        (e, h): json.loads(choice)["log_loss"] for e, h, choice in base.select("encoder", "head", "choice").rows()
    }
    picked = pick.best(study / "results/heads")
    assert (picked.head.record.encoder.name, picked.head.record.head) == min(losses, key=losses.__getitem__)
    assert picked.rivals == len(ON_LAST_LAYER + ON_BLOCKS) and picked.log_loss == min(losses.values())
    assert picked.seen == picked.unrated == picked.rivals - len(losses), "heads on an encoder that saw the images"


def record(
    folder: Path, head: str, held_out: str, seed: int, loss: float | None, novel: float = 0.5, **trained: Any
) -> None:
    key = f"{head}{held_out}{seed}{trained.get('recipe', '')}"
    choice = json.dumps({"log_loss": loss, **trained.pop("choice", {})})
    tests = {"base": {"accuracy": 0.5}, "novel": {"accuracy": novel}}
    of_rows = {"dataset": "made", "held_out": held_out, "by": "category", "seed": seed, "train_groups": ()}
    of_head = {"train_rows": 2, "chosen_by": "", "choice": choice, "code_version": "", "tests": tests}
    files = {"rows_file": "", "rows_sha256": "", "far_beyond": None}
    labels = Labels.of(["FAKE", "REAL"])
    tuned = {"base_identity": "", "checkpoint": "", "settings": {}, "seed": 0, "held_out": "cat", "train_sha256": ""}
    trained_on = TrainedOn(**tuned, **trained, train_categories=(), train_rows=2) if trained else None
    encoder = replace(FakeEncoder().record, trained_on=trained_on)
    about = HeadRecord(key, head, encoder, "none", labels, **of_rows, **of_head, **files)
    write_record(folder / f"{key}.json", as_plain(about))


@pytest.mark.parametrize(("loss", "said"), [(0.64, ""), (0.68, "hardly better"), (0.75, "no better")])
def test_a_head_that_hardly_beats_guessing_is_said_to(tmp_path: Path, loss: float, said: str) -> None:
    """Of two labels guessing has a log loss of 0.693."""
    record(tmp_path, "logreg", "cat", 0, loss)
    warning = pick.best(tmp_path).hardly_better
    assert warning == (f"That log loss is {said} than guessing (0.693)." if said else "")


def test_over_several_categories_and_seeds_the_mean_decides_and_no_test_image(tmp_path: Path) -> None:
    for head, held_out, seed, loss, novel in [
        ("steady", "dog", 1, 0.1, 0.9),
        ("steady", "dog", 0, 0.3, 0.9),
        ("steady", "cat", 0, 0.4, 0.6),
        ("lucky", "cat", 0, 0.2, 1.0),
        ("lucky", "dog", 0, 0.5, 1.0),
    ]:
        record(tmp_path, head, held_out, seed, loss, novel)
    picked = pick.best(tmp_path)
    assert (picked.head.key, picked.rivals, picked.unrated) == ("steadycat0", 2, 0)
    assert picked.log_loss == pytest.approx((0.1 + 0.3 + 0.4) / 3)
    assert pick.best(tmp_path, head="lucky").rivals == 1
    with pytest.raises(ResultsError, match="--encoder base --head lucky; --encoder base --head steady"):
        pick.best(tmp_path, head="knn")


def test_a_score_on_images_that_the_encoder_was_trained_on_never_decides(tmp_path: Path) -> None:
    record(tmp_path, "logreg", "cat", 0, 0.6)
    record(tmp_path, "logreg", "cat", 0, 0.03, novel=1.0, recipe="study")
    record(tmp_path, "knn", "cat", 0, 0.01, recipe="study")
    record(tmp_path, "zero-shot", "cat", 0, None, recipe="study")
    picked = pick.best(tmp_path)
    assert (picked.head.key, picked.unrated, picked.seen) == ("logregcat0", 3, 3)
    unscored = "3 heads on fine-tuned encoders have no such score"
    assert picked.chosen_by == f"log loss 0.600 on left-out training images; {unscored}"
    tuned = pick.best(tmp_path, encoder="finetuned")
    assert (tuned.head.record.head, tuned.log_loss) == ("zero-shot", None), "the first in the order of the tables"
    assert tuned.chosen_by.startswith("not chosen by category: the encoder trained on these images")


def test_what_a_recipe_chose_without_a_third_of_the_categories_rates_its_zero_shot(tmp_path: Path) -> None:
    recipe = {"by": "category", "log_loss": 0.4}
    record(tmp_path, "logreg", "cat", 0, 0.6)
    record(tmp_path, "zero-shot", "cat", 0, 0.4, recipe="robust chosen", choice={"recipe": recipe})
    record(tmp_path, "logreg", "cat", 0, 0.03, recipe="robust chosen", choice={"recipe": recipe})
    picked = pick.best(tmp_path)
    assert (picked.head.record.head, picked.log_loss, picked.seen) == ("zero-shot", 0.4, 1)


def test_only_the_last_comparison_counts(tmp_path: Path) -> None:
    for head, loss in [("a", 0.7), ("b", 0.5), ("old", 0.1)]:
        record(tmp_path, head, "none", 0, loss)
    write_record(tmp_path / kept_heads.LAST, {"heads": ["anone0", "bnone0"]})
    assert pick.best(tmp_path).head.key == "bnone0"


def test_new_images_are_embedded_once_and_the_second_time_no_model_is_loaded(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.jpg").write_bytes(jpeg(9_001))
    first = objects(study, tmp_path)
    monkeypatch.setattr(predicting, "load_again", lambda *_: pytest.fail("a model was loaded"))
    assert objects(study, tmp_path / "new.jpg") == first


def test_files_folders_zips_and_standard_input_may_be_mixed(study: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", {"b/2.jpg": jpeg(1), "b/10.jpg": jpeg(2), "notes.txt": b"no image"})
    archive = write_zip(tmp_path / "z.zip", {"in/a.jpg": jpeg(3), "../out.jpg": jpeg(4)})
    (tmp_path / "100%.jpg").write_bytes(jpeg(5))
    words = [folder, archive, "-", *places(study), "--json"]
    result = call("predict", *words, stdin=f"{tmp_path / '100%.jpg'}\n\n")
    found = json.loads(result.stdout)
    assert [one["path"] for one in found if one["label"]] == [
        f"{folder}/b/2.jpg",
        f"{folder}/b/10.jpg",
        f"{archive}/in/a.jpg",
        str(tmp_path / "100%.jpg"),
    ]
    assert {one["path"]: one["reason"] for one in found if not one["label"]} == {
        f"{folder}/notes.txt": "no picture (.txt)",
        f"{archive}/../out.jpg": "its name leads out of the zip",
    }


def test_what_cannot_be_read_is_listed_with_its_reason_and_stops_nothing(study: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    (tmp_path / "b.jpg").write_bytes(jpeg(1))
    (tmp_path / "c.zip").write_bytes(b"no zip")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    bad = [tmp_path / name for name in ("a.jpg", "c.zip", "empty", "pipe.jpg", "gone.jpg")] + ["/dev/zero"]
    found = objects(study, tmp_path / "b.jpg", *bad)
    assert found[0]["label"] in ("REAL", "FAKE") and found[0]["reason"] is None
    assert all(one["label"] is None and one["p_real"] is None for one in found[1:])
    says = [
        "not a readable image",
        "cannot be read as a zip",
        "no images",
        "not a regular",
        "no such file",
        "not a reg",
    ]
    assert all(words in one["reason"] for words, one in zip(says, found[1:], strict=True)), found
    none = call("predict", *bad, *places(study))
    assert none.exit_code == 2 and "Traceback" not in none.output


def test_csv_is_a_table_whose_text_is_never_a_formula(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("=1+1.jpg").write_bytes(jpeg(1))
    result = call("predict", "=1+1.jpg", *places(study), "--csv")
    table = pl.read_csv(io.StringIO(result.stdout))
    assert table.columns[:3] == ["path", "label", "p_real"] and table["path"].to_list() == ["'=1+1.jpg"]


def test_what_it_rests_on_is_said(study: Path, tmp_path: Path) -> None:
    (tmp_path / "[red]new.jpg").write_bytes(jpeg(1))
    output = " ".join(call("predict", tmp_path, *places(study)).output.split())
    chosen = pick.best(study / "results/heads")
    assert f": {chosen.chosen_by}. It learned from 48 images of cifake without cat" in output
    assert "Fine-tuned encoders saw the training images" in output and "[red]new.jpg" in output
    tuned = objects(study, tmp_path, "--encoder", "finetuned", "--head", "logreg")
    assert tuned[0]["chosen_by"] == "not chosen by category: the encoder trained on these images"


def test_an_image_is_far_where_it_lies_beyond_99_percent_of_the_training_images(study: Path, tmp_path: Path) -> None:
    about = pick.best(study / "results/heads", "base", "logreg").head
    cache = Cache(study / "cache", about.record.encoder)
    training = cache.read_images(kept_heads.training_rows(about)["sha256"].to_list()).astype(np.float64)
    training /= np.linalg.norm(training, axis=1, keepdims=True)
    apart = 1 - training @ training.T
    np.fill_diagonal(apart, np.inf)
    limit = np.quantile(apart.min(axis=1), 0.99)
    assert about.record.far_beyond == pytest.approx(limit, abs=1e-5)

    write_folder(tmp_path, {f"{i}.jpg": jpeg(70 + i, size=size) for i, size in enumerate((32, 32, 8, 200))})
    found = objects(study, tmp_path, "--encoder", "base", "--head", "logreg")
    keys = [hashlib.sha256(Path(one["path"]).read_bytes()).hexdigest() for one in found]
    mine = cache.read_images(keys).astype(np.float64)
    distances = 1 - (mine / np.linalg.norm(mine, axis=1, keepdims=True) @ training.T).max(axis=1)
    np.testing.assert_allclose([one["distance"] for one in found], distances, atol=1e-5)
    assert [one["far"] for one in found] == (distances > limit).tolist()
    assert {one["far"] for one in found} == {True, False}


def test_alpha_abstains_and_the_calibration_images_did_not_train_the_head(study: Path, tmp_path: Path) -> None:
    about = pick.best(study / "results/heads", "base", "logreg").head
    cache = Cache(study / "cache", about.record.encoder)
    rule = calibration.abstaining(about, kept_heads.load(about, cache), cache, 0.2)
    assert rule.head.model_.n_features_in_ and "NOT guaranteed" not in rule.note
    assert "fitted on 36 training images and calibrated on 12 others" in rule.note
    knn = pick.best(study / "results/heads", "base", "knn").head
    fitted = calibration.abstaining(knn, kept_heads.load(knn, cache), cache, 0.2).head
    assert len(fitted.vectors_) == 36

    result = call("predict", study / "cifake/test", *places(study), "--alpha", 0.2, "--encoder", "finetuned", "--json")
    found = json.loads(result.stdout)
    assert all((one["label"] is None) == (len(one["open"]) != 1) for one in found)
    assert "NOT guaranteed here" in result.stderr and "measured on 16 base test images" in result.stderr
    assert "measured on 12 novel test images" in result.stderr


def test_blocks_saw_no_image_of_ours_so_their_calibration_is_guaranteed(study: Path) -> None:
    image = next((study / "cifake/test").rglob("*.jpg"))
    result = call("predict", image, *places(study), "--encoder", "blocks", "--head", "logreg", "--alpha", "0.3")
    assert result.exit_code == 0 and "NOT guaranteed" not in result.stderr, result.output


def test_a_fine_tuned_head_is_calibrated_on_images_that_trained_nothing(study: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "more", cifake_files(20, 6))
    about = pick.best(study / "results/heads", "finetuned", "logreg").head
    seen = set(kept_heads.rows_of(about)["sha256"])
    fresh = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "more/train").rglob("*.jpg")
        if "(4)" not in path.name
    } - seen
    assert 60 < len(fresh) < 120, "some are the study's own, none is a cat"
    words = ["--encoder", "finetuned", "--head", "logreg", "--alpha", 0.1, "--calibrate", tmp_path / "more", "--json"]
    result = call("predict", study / "cifake/test", *places(study), *words)
    assert f"calibrated on {len(fresh)} images of more that nothing was trained on" in result.stderr
    assert "NOT guaranteed" not in result.stderr

    cache = Cache(study / "cache", about.record.encoder)
    labels = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name for path in (tmp_path / "more").rglob("*.jpg")
    }
    keys = sorted(fresh)
    odds = kept_heads.load(about, cache).predict_proba(cache.read_images(keys))[:, 1]
    real = np.array([labels[key] == "REAL" for key in keys])
    limits = [np.sort(m)[int(np.ceil((len(m) + 1) * 0.9)) - 1] for m in (odds[~real], 1 - odds[real])]
    for one in json.loads(result.stdout):
        misfits = {"FAKE": one["p_real"], "REAL": 1 - one["p_real"]}
        limit = dict(zip(misfits, limits, strict=True))
        assert one["open"] == [label for label, misfit in misfits.items() if misfit <= limit[label]]
    moved = call("predict", study / "cifake/test", *places(study), *words[:4], "--fake-recall", 0.9, *words[6:])
    assert f"above {limits[0]:.4f}" in moved.stderr and "coverage" not in moved.stderr


def test_too_little_data_for_the_promise_is_one_line(study: Path) -> None:
    for rule in (["--alpha", "0.01"], ["--fake-recall", "0.999"]):
        result = call("predict", study / "cifake/test", *places(study), *rule)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "are needed" in result.stderr
    both = call("predict", study / "cifake/test", *places(study), "--alpha", 0.1, "--fake-recall", 0.9)
    assert both.exit_code == 2 and "choose one" in both.stderr
    alone = call("predict", study / "cifake/test", *places(study), "--calibrate", study / "cifake")
    assert alone.exit_code == 2 and "--alpha" in alone.stderr


def test_the_operating_point_comes_from_scores_of_left_out_categories_which_are_kept(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = pick.best(study / "results/heads", "base", "logreg").head
    cache = Cache(study / "cache", about.record.encoder)
    rows = kept_heads.training_rows(about)
    vectors, y = cache.read_images(rows["sha256"].to_list()), rows["label"].to_numpy()
    groups = rows["category"].to_numpy()
    scores = np.empty(len(rows))
    for category in set(groups):
        out = groups == category
        head = make_head("logreg", {}, "category").fit(vectors[~out], y[~out], groups=groups[~out])
        scores[out] = head.predict_proba(vectors[out])[:, 1]
    line = np.sort(scores[y == "FAKE"])[int(np.ceil(25 * 0.9)) - 1]
    rule = calibration.operating_point(about, kept_heads.load(about, cache), cache, 0.9, None, lambda *_: None)
    assert f"above {line:.4f}" in rule.note
    odds = np.array([[1 - line, line], [1 - line - 1e-6, line + 1e-6]])
    assert rule.answers(odds).tolist() == [[True, False], [False, True]]

    monkeypatch.setattr(calibration, "clone", lambda head: pytest.fail("a head was fitted again"))
    again = calibration.operating_point(about, kept_heads.load(about, cache), cache, 0.9, None, lambda *_: None)
    assert again.note == rule.note


def test_with_the_other_label_positive_p_is_that_ones(study: Path, tmp_path: Path) -> None:
    words = [*options(study), "--results", tmp_path, "--positive", "FAKE", "--split", "none"]
    assert call("embed", *words).exit_code == 0
    assert call("compare", *words).exit_code == 0
    known = pl.read_csv(tmp_path / "predictions.csv").filter(pl.col("head") == "logreg")
    request = Request(study / "cache", tmp_path, head="logreg", encoder="base")
    done = predict_images(open_loose([str(study / "cifake" / path) for path in known["path"]]), request)
    assert done.head.record.labels.names == ("REAL", "FAKE")
    assert done.images["label"].to_list() == known["predicted"].to_list()
    np.testing.assert_allclose(done.images["p_real"], known["p_real"], atol=1e-5)
    cache = Cache(study / "cache", done.head.record.encoder)
    line = calibration.operating_point(done.head, kept_heads.load(done.head, cache), cache, 0.9, None, lambda *_: None)
    assert "FAKE only where P(FAKE) is above" in line.note and "of REAL are called FAKE" in line.note


def test_a_read_only_cache_still_predicts_and_is_left_alone(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.jpg").write_bytes(jpeg(9_002))
    before = sorted((study / "cache").rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert objects(study, tmp_path)[0]["label"]
    assert sorted((study / "cache").rglob("*")) == before


def test_without_the_training_images_vectors_it_predicts_and_says_that_nothing_can_be_far(
    study: Path, tmp_path: Path
) -> None:
    words = [study / "cifake/test/REAL/0001.jpg", "--cache", tmp_path, "--results", study / "results"]
    result = call("predict", *words, "--encoder", "base", "--head", "logreg", "--json")
    assert json.loads(result.stdout)[0]["far"] is None and "no image can be called far" in result.stderr
    gone = call("predict", *words, "--encoder", "finetuned")
    assert gone.exit_code == 2 and "python cli.py finetune" in gone.stderr
    alpha = call("predict", *words, "--encoder", "base", "--alpha", 0.2)
    assert alpha.exit_code == 2 and "python cli.py embed" in alpha.stderr


def test_neighbours_stay_in_the_cache_so_that_saved_heads_are_small(study: Path) -> None:
    found = kept_heads.find(study / "results/heads")
    small = [head for head in found if head.record.head in ("zero-shot", "logreg", "knn", "tip-adapter")]
    assert len({head.record.head for head in small}) == 4  # a linear model of every class on all blocks is larger
    assert max((head.folder / f"{head.key}.safetensors").stat().st_size for head in small) < 10_000
    about = pick.best(study / "results/heads", "base", "knn").head
    cache = Cache(study / "cache", about.record.encoder)
    assert kept_heads.load(about, cache).vectors_.shape == (48, cache.record.dimension)


@pytest.mark.parametrize("damage", ["record", "head", "rows", "gone"])
def test_a_damaged_head_is_one_line_and_compare_makes_it_anew(study: Path, tmp_path: Path, damage: str) -> None:
    home = Path(shutil.copytree(study, tmp_path / "study"))
    heads = home / "results/heads"
    kinds = {"record": "*[0-9a-f].json", "head": "*.safetensors", "rows": "rows-*", "gone": "*"}
    for path in heads.glob(kinds[damage]):
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-7] + b"garbage")
    result = call("predict", home / "cifake/test", *places(home))
    assert result.exit_code == 2 and result.stderr.startswith("Error:") and len(result.stderr.splitlines()) == 1
    assert "compare" in result.stderr
    assert call("compare", *options(home), "--heads", ",".join(ON_EMBEDDINGS)).exit_code == 0
    assert objects(home, home / "cifake/test") == objects(study, home / "cifake/test")


class Evil:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch /tmp/evil",))


def hostile(head: object) -> bytes:
    version = ".".join(sklearn.__version__.split(".")[:2])
    return save({}, {stored.FORMAT: json.dumps({"scikit-learn": version, "head": head})})


@pytest.mark.parametrize(
    "data",
    [
        hostile({"is": "object", "class": "subprocess.Popen", "of": [["args", "ls"]]}),
        hostile({"is": "object", "class": "toolkit.heads.base.unit", "of": []}),
        hostile({"is": "array", "of": "7", "shape": [1]}),
        hostile({"is": "nothing"}),
        pickle.dumps(Evil()),
        b"",
        b"\xff" * 64,
    ],
)
def test_a_file_that_is_no_head_runs_nothing_and_is_refused(data: bytes) -> None:
    with pytest.raises(ResultsError, match="run python cli.py compare again"):
        stored.from_bytes(data, "heads/x.safetensors")
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("name", ON_EMBEDDINGS)
def test_every_head_is_stored_without_code_and_comes_back_the_same(name: str) -> None:
    rng = np.random.default_rng(0)
    y = np.array(["FAKE", "REAL"] * 30)
    X = rng.standard_normal((60, 16)).astype(np.float32) + (y == "REAL")[:, None]
    groups = np.array([f"category {number % 3}" for number in range(60)])
    head = make_head(name, {"FAKE": X[:2], "REAL": X[2:4]}).fit(X, y, groups=groups)
    again = stored.from_bytes(stored.to_bytes(head), name)
    assert np.array_equal(again.predict_proba(X), head.predict_proba(X))
    assert stored.to_bytes(again) == stored.to_bytes(head)
    assert again.choice_ == head.choice_ and again.classes_.tolist() == ["FAKE", "REAL"]


def test_a_head_of_another_scikit_learn_is_refused_and_foreign_objects_are_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = stored.to_bytes(LogisticRegression())
    with pytest.raises(TypeError):
        stored.to_bytes(FakeEncoder())
    monkeypatch.setattr(sklearn, "__version__", "0.1.2")
    with pytest.raises(ResultsError, match="this is 0.1.2"):
        stored.from_bytes(data, "x")


def test_an_encoder_that_has_become_another_is_refused(study: Path, tmp_path: Path) -> None:
    heads = Path(shutil.copytree(study / "results/heads", tmp_path / "heads"))
    about = pick.best(heads, "base", "logreg").head
    path = heads / f"{about.key}.json"
    record = read_record(path)
    record["encoder"]["identity"] = "0" * 16
    write_record(path, record)
    with pytest.raises(EncoderError, match="not the encoder"):
        load_again(pick.best(heads, "base", "logreg").head, study / "cache")


def test_a_network_on_pixels_predicts_where_it_is_asked_for_and_is_never_the_default(tmp_path: Path) -> None:
    write_folder(tmp_path / "cifake", cifake_files(10, 6))
    words = [*options(tmp_path), "--heads", "cnn,logreg"]
    assert call("embed", *options(tmp_path)).exit_code == 0 and call("compare", *words).exit_code == 0
    known = pl.read_csv(tmp_path / "results/predictions.csv").filter(pl.col("head") == "cnn")
    found = objects(tmp_path, *[tmp_path / "cifake" / path for path in known["path"]], "--head", "cnn")
    assert [one["p_real"] for one in found] == pytest.approx(known["p_real"].to_list(), abs=1e-6)
    assert pick.best(tmp_path / "results/heads").head.record.head == "logreg"


def test_every_head_has_words_for_people() -> None:
    assert list(WORDS) == list(HEADS)


def test_many_images_are_predicted_slice_by_slice_with_the_same_answers(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {f"{n}.jpg": jpeg(n) for n in range(11)} | {"4.jpg": b"no image"})
    at_once = objects(study, tmp_path)
    sizes: list[int] = []
    read = Cache.read_images
    monkeypatch.setattr(predicting, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(Cache, "read_images", lambda self, keys: sizes.append(len(keys)) or read(self, keys))
    assert objects(study, tmp_path) == at_once
    assert sorted(sizes)[:-1] == [2, 2, 3, 3], "the largest are the training images"


@pytest.mark.parametrize("gone", ["a.jpg", "b.jpg"])
def test_of_two_equal_pictures_one_is_answered_though_the_other_vanishes_after_it_was_hashed(
    study: Path, tmp_path: Path, gone: str
) -> None:
    picture = jpeg(9_100 + ord(gone[0]))
    folder = write_folder(tmp_path, {"a.jpg": picture, "b.jpg": picture, "c.jpg": jpeg(9_200 + ord(gone[0]))})

    def vanish(stage: str, done: int, total: int) -> None:
        if stage == "Reading" and done == total:
            (folder / gone).unlink(missing_ok=True)

    done = predict_images(open_loose([str(folder)]), Request(study / "cache", study / "results"), vanish)
    found = {Path(path).name: label for path, label in done.images.select("path", "label").iter_rows()}
    assert all(found[name] in ("REAL", "FAKE") for name in found if name != gone) and len(found) == 3


def counted_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copies_are_sorted_by_label_and_nothing_is_moved_or_replaced(study: Path, tmp_path: Path) -> None:
    files = {"a/x.jpg": jpeg(1), "b/x.jpg": jpeg(2), "c/y.jpg": jpeg(3), "bad.jpg": b"no image"}
    photos, sorted_to = write_folder(tmp_path / "photos", files), tmp_path / "sorted"
    labels = {Path(one["path"]).relative_to(photos).as_posix(): one["label"] for one in objects(study, photos)}
    mine = sorted_to / str(labels["c/y.jpg"]) / "y.jpg"
    write_folder(sorted_to, {mine.relative_to(sorted_to).as_posix(): b"a file of the user's"})
    result = call("predict", photos, *places(study), "--copy-to", sorted_to)
    assert result.exit_code == 0 and f"Copied to {sorted_to}" in result.output
    assert counted_files(photos) == files, "nothing is moved"
    copied = counted_files(sorted_to)
    assert mine.read_bytes() == b"a file of the user's"
    assert mine.with_name("y-2.jpg").read_bytes() == files["c/y.jpg"]
    for name in ("a/x.jpg", "b/x.jpg"):
        assert files[name] in [data for path, data in copied.items() if path.startswith(f"{labels[name]}/x")]
    assert len(copied) == 4
    again = call("predict", photos, *places(study), "--copy-to", sorted_to)
    assert "3 there already" in again.output and counted_files(sorted_to) == copied


def test_a_picture_that_is_left_open_is_copied_to_unsure_and_a_zips_members_too(study: Path, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "z.zip", {f"in/{n}.jpg": jpeg(n, label) for n, label in enumerate(["REAL"] * 20)})
    words = [archive, *places(study), "--encoder", "base", "--head", "logreg", "--alpha", "0.15"]
    result = call("predict", *words, "--copy-to", tmp_path / "sorted", "--json")
    assert result.exit_code == 0, result.output
    answers = {Path(one["path"]).name: one["label"] or "unsure" for one in json.loads(result.stdout)}
    assert {Path(path).name: path.split("/")[0] for path in counted_files(tmp_path / "sorted")} == answers


def same_names(count: int) -> tuple[pl.DataFrame, dict[str, bytes]]:
    """So many pictures of one name, as `copies.copy` takes them, and their bytes, which are equally many."""
    files = {f"{n}/a.jpg": f"picture {n:04d}".encode() for n in range(count)}
    images = pl.DataFrame({"path": [*files], "label": ["REAL"] * count, "reason": [None] * count})
    return images.with_columns(pl.col("reason").cast(pl.String)), files


def test_pictures_of_one_name_get_numbers_and_are_found_again(tmp_path: Path) -> None:
    images, files = same_names(3)
    assert copies.copy(images, files.__getitem__, tmp_path) == copies.Copied({"REAL": 3}, 0, 0)
    expected = dict(zip(("REAL/a.jpg", "REAL/a-2.jpg", "REAL/a-3.jpg"), files.values(), strict=True))
    assert counted_files(tmp_path) == expected
    for again in (images, images.reverse(), images[2:]):
        assert copies.copy(again, files.__getitem__, tmp_path) == copies.Copied({}, len(again), 0)
    assert counted_files(tmp_path) == expected


def test_each_of_many_files_of_one_name_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, files = same_names(30)
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or read_bytes(self))
    copies.copy(images, files.__getitem__, tmp_path)
    copies.copy(images.reverse(), files.__getitem__, tmp_path)
    assert len(read) == len(set(read)) <= 30


def test_a_label_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    labels = ["../up", "..", "a/b", "", "fine"]
    images = pl.DataFrame({"path": [f"{n}.jpg" for n in range(5)], "label": labels, "reason": [None] * 5})
    copies.copy(images.with_columns(pl.col("reason").cast(pl.String)), str.encode, tmp_path / "in")
    assert sorted(path.parent.name for path in tmp_path.rglob("*.jpg")) == ["_", "_", "_up", "a_b", "fine"]
    assert all(path.parents[1] == tmp_path / "in" for path in tmp_path.rglob("*.jpg"))


def test_copies_inside_the_predicted_folder_are_refused(study: Path, tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"a.jpg": jpeg(1)})
    result = call("predict", photos, *places(study), "--copy-to", photos / "sorted")
    assert result.exit_code == 2 and "is inside" in result.output and not (photos / "sorted").exists()


def test_the_page_shows_every_picture_under_its_label_and_what_was_not_read(study: Path, tmp_path: Path) -> None:
    files = {f"<b>{n}.jpg": jpeg(n, "REAL" if n % 2 else "FAKE") for n in range(8)} | {"bad.jpg": b"no image"}
    photos = write_folder(tmp_path / "photos", files)
    result = call("predict", photos, *places(study), "--html", tmp_path / "page.html", "--csv")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 8 and "not a readable image" in page
    assert "<b>" not in page and "<script" not in page and "default-src 'none'" in page
    table = pl.read_csv(io.StringIO(result.stdout)).drop_nulls("label")
    for label, images in table.group_by("label"):
        assert f"<h2>{label[0]}</h2>" in page and f"{len(images)} pictures, the least sure first" in page


def test_the_table_fits_80_columns_and_counts_the_answers(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    folder = write_folder(tmp_path / ("a" * 60), {"b.jpg": jpeg(1), "c.jpg": b"no image"})
    done = predict_images(open_loose([str(folder)]), Request(study / "cache", study / "results"))
    with (console := Console(width=80)).capture() as capture:
        console.print(predicted.table(done))
    assert max(map(len, capture.get().splitlines())) <= 80
    assert "b.jpg" in "".join(capture.get().split()) and "unreadable" in capture.get()
    assert predicted.counts(done) in ("REAL 1, not read 1.", "FAKE 1, not read 1.")
