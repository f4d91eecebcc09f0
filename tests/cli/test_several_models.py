"""--model repeated: several encoders read the data once, stand in one table, and are compared on the page."""

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from trees import cifake_files, write_folder

from toolkit.cli.main import cli
from toolkit.data import content_hashes
from toolkit.encoders import nano
from toolkit.prediction import kept_heads, pick
from toolkit.results import tables
from toolkit.results.entrants import studies, subject
from toolkit.results.report.encoders import holm, side_by_side


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, nano's image tower as an encoder of its own, and both of them embedded and compared."""
    folder = tmp_path_factory.mktemp("several")
    write_folder(folder / "data", cifake_files(8, 6))
    tower = {name: one for name, one in load_file(nano.WEIGHTS).items() if name.startswith("visual.")}
    last = next(name for name in reversed(tower) if tower[name].ndim == 2)
    tower[last] = tower[last].roll(1, dims=0) * 0.5 + tower[last]  # another encoder than nano itself
    save_file(tower, folder / "tower.safetensors")
    for command in (["embed"], ["compare", "--heads", "zero-shot,logreg,knn"]):
        done = run(folder, *command)
        assert done.exit_code == 0, done.output
    return folder


def run(folder: Path, command: str, *more: str, models: tuple[str, ...] = ("nano", "nano")) -> Result:
    shared = ["--data", str(folder / "data"), "--train-per-label", "20", "--test-per-label", "12"]
    shared += [word for model in models for word in ("--model", model)]
    shared += ["--pretrained", "shipped", "--pretrained", str(folder / "tower.safetensors")]
    shared += ["--cache", str(folder / "cache"), "--results", str(folder / "results")]
    return CliRunner().invoke(cli, [command, *shared, *more])


def test_the_table_holds_the_rows_of_both(place: Path) -> None:
    rows = pl.read_csv(place / "results" / "results.csv").select("pretrained", "head").unique().rows()
    of_both = {(weights, head) for weights in ("shipped", "tower") for head in ("logreg", "knn")}
    assert set(rows) == of_both | {("shipped", "zero-shot")}


def test_the_second_encoder_reads_and_hashes_no_image_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    plainly = content_hashes.hash_rows

    def watch(dataset, rows, *more):  # noqa: ANN001, ANN002, ANN202
        hashed.extend(rows["path"])
        return plainly(dataset, rows, *more)

    monkeypatch.setattr(content_hashes, "hash_rows", watch)
    done = run(place, "embed", "--json")
    facts = json.loads(done.stdout)
    assert [one["embedded"] for one in facts] == [0, 0] and facts[0]["encoder"] != facts[1]["encoder"]
    assert len(hashed) == len(set(hashed)) > 0


def test_weights_are_one_for_each_or_one_for_all(place: Path) -> None:
    done = run(place, "embed", models=("nano", "nano", "nano"))
    assert done.exit_code == 2 and "--pretrained is given 2 times and --model 3 times" in done.output


def test_predict_takes_the_best_head_of_any_model(place: Path) -> None:
    every = kept_heads.find(place / "results" / kept_heads.FOLDER)
    picked = pick.best(place / "results" / kept_heads.FOLDER)
    losses = {one.key: json.loads(one.record.choice)["log_loss"] for one in every}
    assert picked.rivals == len(every) == 5 and picked.head.key == min(losses, key=losses.__getitem__)


def test_one_head_stands_for_each_encoder_and_none_is_picked_on_test_images(place: Path) -> None:
    table, predictions = tables.read(place / "results")
    best, other = side_by_side(table, predictions, subject(table, predictions))
    assert {best.model, other.model} == {"nano (shipped)", "nano (tower)"} and best.duel is None
    for row in (best, other):
        weights = row.model.split("(")[1].removesuffix(")")
        mine = table.filter((pl.col("pretrained") == weights) & (pl.col("class") == "all"))
        left_out = {head: json.loads(choice)["log_loss"] for head, choice in mine.select("head", "choice").iter_rows()}
        assert row.entrant.head == min(left_out, key=left_out.__getitem__)


def test_the_difference_and_its_p_are_of_the_same_images(place: Path) -> None:
    table, predictions = tables.read(place / "results")
    best, other = side_by_side(table, predictions, subject(table, predictions))
    right = {}
    for row in (best, other):
        weights = row.model.split("(")[1].removesuffix(")")
        mine = predictions.filter(pretrained=weights, head=row.entrant.head, test="novel").sort("path")
        right[row.model] = (mine["label"] == mine["predicted"]).to_numpy()
    ours, theirs = right[other.model], right[best.model]
    assert other.duel.difference == pytest.approx(ours.mean() - theirs.mean()) and other.duel.difference <= 0
    gains, losses = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    assert other.p == pytest.approx(binomtest(gains, gains + losses).pvalue if gains + losses else 1.0)


def test_the_page_and_the_terminal_show_them_side_by_side(place: Path) -> None:
    shown = run(place, "compare", "--heads", "zero-shot,logreg,knn")
    assert "Encoders side by side" in shown.output
    for name in ("nano (shipped)", "nano (tower)"):
        assert f": {name}, trained on" in shown.output
    done = CliRunner().invoke(cli, ["report", "--results", str(place / "results")])
    assert done.exit_code == 0, done.output
    page = (place / "results" / "report.html").read_text()
    assert "Encoders side by side" in page and "Holm" in page and "nano (shipped)" in page


def test_one_model_alone_has_no_such_section(place: Path) -> None:
    table, predictions = (frame.filter(pretrained="shipped") for frame in tables.read(place / "results"))
    assert side_by_side(table, predictions, subject(table, predictions)) == []


def test_models_on_other_images_are_not_set_beside_it(place: Path) -> None:
    table, predictions = (
        frame.with_columns(images=pl.when(pl.col("pretrained") == "tower").then(pl.lit("other")).otherwise("images"))
        for frame in tables.read(place / "results")
    )
    assert side_by_side(table, predictions, subject(table, predictions)) == []


def test_an_encoder_that_was_not_put_to_the_test_that_decides_is_left_out(place: Path) -> None:
    table, predictions = (
        frame.filter((pl.col("pretrained") == "shipped") | (pl.col("test") == "base"))
        for frame in tables.read(place / "results")
    )
    shown = subject(table, predictions, [one["pretrained"] for one in studies(table)].index("shipped") + 1)
    assert shown.decides == "novel" and side_by_side(table, predictions, shown) == []


def test_holm_is_that_of_statsmodels() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # multipletests(…, method="holm")
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []
