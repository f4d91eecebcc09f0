"""The workbook as another program reads it, and the summary that it shows."""

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import polars as pl
import pytest

from toolkit.evaluation import columns
from toolkit.evaluation.scoring import score, with_p_best
from toolkit.results.published import FIGURES, study_figure
from toolkit.results.summary import left_out_means, standing, summary
from toolkit.results.workbook import workbook_bytes


def predictions(right: float, **about: object) -> pl.DataFrame:
    """100 images of which the share `right` is called right, the wrong ones FAKE called REAL first."""
    every = {"dataset": "made", "held_out": "cat", "encoder": "base", "head": "logreg", "test": "base"}
    every |= {"category": "dog", "model": "m", "pretrained": "p", "encoder_id": "e", "recipe": "", "seed": 0}
    every |= {"train_per_label": 450, "test_per_label": 100, "chosen_by": "category"}
    every |= {"labels": '["FAKE", "REAL"]', "split_by": "category", "images": "", "study": ""}
    every |= {"perturbation": "", "test_data": ""} | about
    wrong = round(100 * (1 - right))
    label = ["FAKE"] * 50 + ["REAL"] * 50
    predicted = [("REAL" if one == "FAKE" else "FAKE") if i < wrong else one for i, one in enumerate(label)]
    data = {
        **every,
        "path": [f"{i}.png" for i in range(100)],
        "sha256": [f"{i:064x}" for i in range(100)],
        "label": label,
        "predicted": predicted,
        "p_real": [0.9 if one == "REAL" else 0.1 for one in predicted],
    }
    made = pl.DataFrame(data, schema_overrides=columns.schema(columns.PREDICTIONS))
    return columns.brought_up_to_date(made, columns.PREDICTIONS)


def table(*of: pl.DataFrame) -> pl.DataFrame:
    every = pl.concat(of)
    made = pl.DataFrame(score(every, ["FAKE", "REAL"], 0), schema=columns.schema(columns.RESULTS))
    return with_p_best(made, every)


def both(base: float, novel: float, **about: object) -> list[pl.DataFrame]:
    return [predictions(base, test="base", **about), predictions(novel, test="novel", **about)]


def sheet(path: Path, name: str, header: int = 1) -> pl.DataFrame:
    return pl.read_excel(path, sheet_name=name, read_options={"header_row": header})


def written(folder: Path, of: pl.DataFrame) -> Path:
    path = folder / "results.xlsx"
    path.write_bytes(workbook_bytes(of))
    return path


def xml(path: Path, number: int = 1) -> str:
    with zipfile.ZipFile(path) as book:
        return book.read(f"xl/worksheets/sheet{number}.xml").decode()


def test_the_summary_has_one_row_an_encoder_and_head_with_base_and_novel_side_by_side(tmp_path: Path) -> None:
    made = table(*both(0.9, 0.7, head="logreg"), *both(0.88, 0.4, head="knn"), *both(0.5, 0.5, head="zero-shot"))
    shown = sheet(written(tmp_path, made), "Summary")
    assert shown["Head"].to_list() == ["logreg", "knn", "zero-shot"]
    assert shown["Base accuracy"].to_list() == [0.9, 0.88, 0.5]
    assert shown["Novel accuracy"].to_list() == [0.7, 0.4, 0.5]
    assert shown["Drop"].to_list() == pytest.approx([0.2, 0.48, 0.0])
    assert shown["Base standing"].to_list() == ["best", "not told apart", ""]
    assert shown["Novel standing"].to_list() == ["best", "", ""]
    assert shown["Base FAKE recall"].to_list() == [0.8, 0.76, 0.0]
    assert shown["Novel REAL images"].to_list() == [50, 50, 50]


def test_every_number_of_the_results_sheet_equals_the_tables(tmp_path: Path) -> None:
    made = table(*both(0.9, 0.7))
    shown = sheet(written(tmp_path, made), "Results", header=0)
    assert shown.columns == list(columns.RESULTS)
    for name, (kind, _) in columns.RESULTS.items():
        if kind != pl.String and made[name].null_count() < len(made):
            assert shown[name].cast(pl.Float64).to_list() == pytest.approx(made[name].cast(pl.Float64).to_list()), name


@pytest.mark.skipif(not shutil.which("soffice"), reason="needs LibreOffice (soffice), which is not installed")
def test_libreoffice_reads_the_tables_own_numbers(tmp_path: Path) -> None:
    made = table(*both(0.9, 0.7), *both(0.87, 0.44, head="knn"))
    options = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false,false,false,false,-1"  # every sheet, unrounded
    words = ["soffice", f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--headless", "--convert-to"]
    words += [options, "--outdir", str(tmp_path), str(written(tmp_path, made))]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    shown = pl.read_csv(tmp_path / "results-Results.csv")
    for name in ("precision", "recall", "f1", "support", "accuracy", "accuracy_low", "f1_high", "brier"):
        assert shown[name].to_list() == pytest.approx(made[name].to_list(), rel=1e-14), name  # it writes 15 digits
    summary_shown = pl.read_csv(tmp_path / "results-Summary.csv", skip_lines=1)
    assert summary_shown["Novel accuracy"].to_list() == ["70%", "44%"]


def test_the_studys_figures_stand_beside_ours_only_where_they_apply(tmp_path: Path) -> None:
    about = {"dataset": "cifake-24k", "head": "zero-shot", "encoder": "finetuned"}
    shown = sheet(written(tmp_path, table(*both(0.9, 0.7, **about))), "Summary")
    assert shown["Study: base accuracy"].item() == 0.90 and shown["Study: novel accuracy"].item() == 0.70
    assert shown["Study: novel FAKE recall"].item() == 0.40 and shown["Study: base REAL precision"].item() == 0.85
    for other in ({"held_out": "dog"}, {"dataset": "mine"}, {"head": "knn"}):
        shown = sheet(written(tmp_path, table(*both(0.9, 0.7, **(about | other)))), "Summary")
        assert not [name for name in shown.columns if name.startswith("Study")], other


def test_the_studys_figures_agree_with_themselves() -> None:
    """At 100 images a class accuracy is the mean recall, and precision follows from the recalls; to two digits."""
    for figures in FIGURES.values():
        fake, real = figures["recall_FAKE"], figures["recall_REAL"]
        assert figures["accuracy"] == pytest.approx((fake + real) / 2, abs=0.0051)
        for mine, other, name in ((fake, real, "FAKE"), (real, fake, "REAL")):
            called = mine + 1 - other
            assert figures[f"precision_{name}"] == pytest.approx(mine / called if called else 0.0, abs=0.0151)
    row = {"dataset": "CIFAKE", "held_out": "cat", "encoder": "base", "head": "zero-shot"}
    assert study_figure(row, "base", "accuracy") == 0.50 and study_figure(row, "novel", "accuracy") is None


def test_shares_are_percent_headers_stay_and_every_column_has_a_width(tmp_path: Path) -> None:
    path = written(tmp_path, table(*both(0.9, 0.7)))
    front = xml(path)
    assert re.search(r'<pane xSplit="5" ySplit="2" topLeftCell="F3" .*state="frozen"', front)
    widths = re.findall(r'<col min="(\d+)" max="(\d+)" width="([\d.]+)"', front)
    assert sum(int(last) - int(first) + 1 for first, last, _ in widths) == len(sheet(path, "Summary").columns)
    with zipfile.ZipFile(path) as book:
        assert 'formatCode="0.0%"' in book.read("xl/styles.xml").decode()


def test_drops_are_coloured_and_no_drop_is_not(tmp_path: Path) -> None:
    rules = re.findall(r"<formula>(.*?)</formula>", xml(written(tmp_path, table(*both(0.9, 0.7)))))
    assert sum("ISNUMBER" in rule for rule in rules) == 2
    none = written(tmp_path, table(predictions(0.9, held_out="none")))
    assert sheet(none, "Summary").select("Base accuracy", "Novel accuracy", "Drop").row(0) == (0.9, None, None)


def test_several_held_out_values_get_their_mean_and_worst(tmp_path: Path) -> None:
    made = table(*both(0.9, 0.7), *both(0.8, 0.4, held_out="dog"))
    shown = sheet(written(tmp_path, made), "Leave-one-out")
    novel = shown.filter(pl.col("Test") == "novel").row(0, named=True)
    assert (novel["Categories"], novel["Mean accuracy"], novel["Worst accuracy"]) == (2, pytest.approx(0.55), 0.4)
    assert novel["Held out when worst"] == "dog"
    assert left_out_means(table(*both(0.9, 0.7))).is_empty()


def test_rows_on_changed_images_have_a_sheet_of_their_own_and_leave_the_summary_alone(tmp_path: Path) -> None:
    plain = both(0.9, 0.7)
    changed = [predictions(0.6, test="base", perturbation="jpeg:50"), predictions(0.8, test="other", test_data="b")]
    path = written(tmp_path, table(*plain, *changed))
    shown = sheet(path, "Changed images")
    assert shown["Changed by"].to_list() == ["jpeg:50", ""] and shown["Test data"].to_list() == ["", "b"]
    assert shown["Accuracy"].to_list() == [0.6, 0.8]
    assert shown["Unchanged accuracy"].to_list() == [0.9, None]
    assert shown["Loss"].to_list() == [pytest.approx(0.3), None]
    (tmp_path / "plain").mkdir()
    alone = written(tmp_path / "plain", table(*plain))
    assert sheet(path, "Summary").equals(sheet(alone, "Summary"))


def test_what_tells_lines_apart_stands_beside_the_recipe(tmp_path: Path) -> None:
    seeds = table(*both(0.9, 0.7), *both(0.8, 0.6, seed=1))
    names = sheet(written(tmp_path, seeds), "Summary").columns
    assert names.index("Seed") == names.index("Recipe") + 1 < names.index("Base accuracy")
    names = sheet(written(tmp_path, table(*both(0.9, 0.7))), "Summary").columns
    assert names.index("Seed") > names.index("Novel REAL images")


def test_definitions_explain_every_column_and_settings_name_what_was_run(tmp_path: Path) -> None:
    path = written(tmp_path, table(*both(0.9, 0.7)))
    explained = sheet(path, "Definitions", header=0)["Column"].to_list()
    assert set(columns.RESULTS) <= set(explained)
    assert {"Standing", "Drop", "Study", "Changed by, Loss"} <= set(explained)
    assert sheet(path, "Settings", header=0)["model"].to_list() == ["m"]


def test_labels_that_differ_in_case_alone_have_columns_of_their_own(tmp_path: Path) -> None:
    made = pl.concat(both(0.9, 0.7)).with_columns(pl.col("label", "predicted").replace({"FAKE": "cat", "REAL": "Cat"}))
    rows = pl.DataFrame(score(made, ["cat", "Cat"], 0), schema=columns.schema(columns.RESULTS))
    shown = sheet(written(tmp_path, rows), "Summary")
    assert (shown["Base cat recall"].item(), shown["Base Cat recall"].item()) == (0.8, 1.0)


def test_the_predictions_stay_out_of_the_workbook(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path, table(*both(0.9, 0.7)))) as book:
        names = re.findall(r'<sheet name="([^"]+)"', book.read("xl/workbook.xml").decode())
    assert names == ["Summary", "Results", "Definitions", "Settings"]


def test_an_empty_table_still_makes_a_workbook(tmp_path: Path) -> None:
    empty = pl.DataFrame(schema=columns.schema(columns.RESULTS))
    assert summary(empty).is_empty()
    assert sheet(written(tmp_path, empty), "Results", header=0).is_empty()


def test_a_row_is_as_good_as_the_best_only_where_its_interval_ends_above_minus_the_margin() -> None:
    row = {"accuracy": 0.9, "p_best": 0.05}
    within, beyond = {**row, "difference_best_low": -0.019}, {**row, "difference_best_low": -0.021}
    assert [standing(within), standing(beyond), standing({**beyond, "margin": 0.03})] == [
        "≈ best",
        "not told apart",
        "≈ best",
    ]
    assert standing({**within, "margin": 0.0}) == "not told apart"
    assert standing({**within, "p_best": 0.049}) == "≈ best", "worse for sure, and by less than what counts"
    assert standing({**beyond, "p_best": 0.049}) == ""
    assert [standing({"accuracy": 0.9}), standing({"accuracy": None})] == ["best", ""]


def test_a_row_of_an_earlier_version_is_told_to_be_worse_or_not_told_apart() -> None:
    assert [standing({"accuracy": 0.9, "p_best": p}) for p in (0.4, 0.01)] == ["not told apart", ""]
