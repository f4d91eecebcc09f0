"""The results folder: rows replace their own, nothing is lost, and text stays text."""

import json
import random
import re
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT
from processes import clean_processes
from trees import out_of_reach

from toolkit.data.sources.columns import FORMULA_STARTS
from toolkit.errors import ResultsError
from toolkit.evaluation import columns
from toolkit.evaluation.scoring import score, with_p_best
from toolkit.results import tables

DOCS = ROOT / "docs/results.md"


def predictions(dataset: str = "made", head: str = "logreg", shift: float = 0.0, images: int = 20) -> pl.DataFrame:
    """Made-up predictions of one head on one base test set."""
    p = [min(max(0.1 + 0.8 * i / images + shift, 0.01), 0.99) for i in range(images)]
    about = {"dataset": dataset, "held_out": "cat", "encoder": "base", "head": head, "test": "base", "category": "dog"}
    about |= {"model": "m", "pretrained": "p", "encoder_id": "e", "recipe": "", "seed": 0}
    about |= {"perturbation": "", "test_data": ""}
    about |= {"train_per_label": 450, "test_per_label": 100, "chosen_by": "category"}
    about |= {"labels": '["FAKE", "REAL"]', "split_by": "category", "images": "", "study": ""}
    data = {
        **about,
        "path": [f"{i}.png" for i in range(images)],
        "sha256": [f"{i:064x}" for i in range(images)],
        "label": ["REAL" if i % 3 else "FAKE" for i in range(images)],
        "predicted": ["REAL" if one > 0.5 else "FAKE" for one in p],
        "p_real": p,
    }
    made = pl.DataFrame(data, schema_overrides=columns.schema(columns.PREDICTIONS))
    return columns.brought_up_to_date(made, columns.PREDICTIONS)


def table(of: pl.DataFrame) -> pl.DataFrame:
    made = pl.DataFrame(score(of, ["FAKE", "REAL"], 0), schema=columns.schema(columns.RESULTS))
    return with_p_best(made, of)


def store(folder: Path, **kind: object) -> list[str]:
    made = predictions(**kind)  # type: ignore[arg-type]
    return tables.store(folder, table(made), made)


@pytest.mark.parametrize("name", ["results.parquet", "predictions.parquet"])
def test_a_file_that_cannot_be_read_now_is_not_set_aside_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    store(tmp_path, head="logreg")
    before = tables.read(tmp_path)
    with out_of_reach(tmp_path / name), pytest.raises(ResultsError, match=name):
        store(tmp_path, head="knn")
    assert all(now.equals(then, null_equal=True) for now, then in zip(tables.read(tmp_path), before, strict=True))
    assert store(tmp_path, head="knn") == [] and set(tables.read(tmp_path)[0]["head"]) == {"logreg", "knn"}


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 3)), max_size=6))
def test_upsert_behaves_like_a_dict(steps: list[tuple[str, str, int]]) -> None:
    held, model = pl.DataFrame(schema=columns.schema(columns.PREDICTIONS)), {}
    for dataset, head, shift in steps:
        new = predictions(dataset, head, shift / 10, images=3)
        held = tables.upsert(held, new)
        model[dataset, head] = new
    assert len(held) == 3 * len(model)
    for (dataset, head), rows in model.items():
        kept = held.filter((pl.col("dataset") == dataset) & (pl.col("head") == head))
        assert kept.equals(rows)


def test_storing_the_same_comparison_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    store(tmp_path, head="logreg")
    store(tmp_path, head="knn")
    before = (tmp_path / "results.csv").read_bytes()
    store(tmp_path, head="logreg")
    assert (tmp_path / "results.csv").read_bytes() == before


def test_the_order_of_two_comparisons_does_not_show_in_the_files(tmp_path: Path) -> None:
    for folder, heads in (("first", ("logreg", "knn")), ("second", ("knn", "logreg"))):
        for head in heads:
            store(tmp_path / folder, head=head)
    for name in ("results.csv", "predictions.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_one_row_is_the_best_among_all_that_were_scored_on_the_same_images(tmp_path: Path) -> None:
    store(tmp_path, head="logreg")
    store(tmp_path, head="knn", shift=0.2)
    store(tmp_path, head="other images", images=12)
    stored = tables.read(tmp_path)[0].filter(pl.col("class") == "all")
    assert dict(stored.select("head", "p_best").iter_rows()) == {"knn": None, "logreg": 1.0, "other images": None}


def test_two_at_once_do_not_lose_each_others_rows(tmp_path: Path) -> None:
    context = clean_processes()
    workers = [context.Process(target=store, args=(tmp_path,), kwargs={"dataset": f"set{n}"}) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert set(tables.read(tmp_path)[0]["dataset"]) == {f"set{n}" for n in range(4)}


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_named_set_aside_and_never_gives_another_number(tmp_path: Path, seed: int) -> None:
    store(tmp_path, dataset="a")
    before = tables.read(tmp_path)
    rng = random.Random(seed)
    path = tmp_path / rng.choice(["results.parquet", "predictions.parquet"])
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "truncate", "empty", "garbage"])
    if kind == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        data = {"truncate": data[: rng.randrange(len(data))], "empty": b"", "garbage": rng.randbytes(999)}[kind]
    path.write_bytes(bytes(data))
    try:
        after = tables.read(tmp_path)
    except ResultsError as error:
        assert path.name in str(error) and "compare" in str(error)
        assert any(path.name in line for line in store(tmp_path, dataset="a"))
        after = tables.read(tmp_path)
    assert after[0].equals(before[0], null_equal=True) and after[1].equals(before[1])


@pytest.mark.parametrize("name", ["results", "predictions"])
@pytest.mark.parametrize("kind", ["damaged", "gone"])
def test_where_a_file_is_lost_one_line_says_so_and_comparing_again_brings_every_row_back(
    tmp_path: Path, name: str, kind: str
) -> None:
    for dataset in ("a", "=b"):
        store(tmp_path, dataset=dataset)
    before, path = tables.read(tmp_path), tmp_path / f"{name}.parquet"
    spare = (tmp_path / f"{name}.csv").read_bytes()
    path.write_bytes(b"junk") if kind == "damaged" else path.unlink()
    (line,) = store(tmp_path, dataset="a")
    assert str(path) in line and kind in line and "run python cli.py compare again" in line and "\n" not in line
    assert (tmp_path / f"{name}.csv.damaged").read_bytes() == spare, "rows that only the CSV had are not lost"
    assert path.with_name(f"{path.name}.damaged").exists() == (kind == "damaged")
    assert {one.partition(" /")[0] for one in tables.verify(tmp_path)} == {"=b"}
    assert store(tmp_path, dataset="=b") == [] and tables.verify(tmp_path) == []
    after = tables.read(tmp_path)
    assert after[0].equals(before[0], null_equal=True) and after[1].equals(before[1])


def test_verify_finds_the_row_whose_number_was_changed(tmp_path: Path) -> None:
    made = predictions()
    honest = table(made)
    tables.store(tmp_path, honest, made)
    assert tables.verify(tmp_path) == []
    better = honest.with_columns(accuracy=pl.when(pl.col("class") == "FAKE").then(0.99).otherwise("accuracy"))
    tables.store(tmp_path, better, made)
    (line,) = tables.verify(tmp_path)
    assert "FAKE" in line and "accuracy" in line


def test_skipped_images_are_listed_and_the_list_goes_when_there_are_none(tmp_path: Path) -> None:
    skipped = pl.DataFrame({"path": ["=a.jpg"], "reason": ["truncated"]})
    tables.write_skipped(tmp_path, skipped)
    assert (tmp_path / "skipped.csv").read_text() == "path,reason\n'=a.jpg,truncated\n"
    tables.write_skipped(tmp_path, skipped.clear())
    assert not (tmp_path / "skipped.csv").exists()


def test_paths_and_reasons_that_look_like_formulas_are_text_too(tmp_path: Path) -> None:
    made = predictions().with_columns(path=pl.concat_str(pl.lit("=HYPERLINK(1)/"), "path"), category=pl.lit("@x"))
    tables.store(tmp_path, table(made), made)
    read = pl.read_csv(tmp_path / "predictions.csv", infer_schema=False)
    assert set(read["category"]) == {"'@x"} and read["path"].str.starts_with("'=").all()
    tables.write_skipped(tmp_path, pl.DataFrame({"path": ["-1.jpg"], "reason": ["+2"]}))
    assert (tmp_path / "skipped.csv").read_text() == "path,reason\n'-1.jpg,'+2\n"


def test_a_workbook_that_was_edited_is_kept_aside_and_named(tmp_path: Path) -> None:
    store(tmp_path, head="logreg")
    book = tmp_path / "results.xlsx"
    book.write_bytes(book.read_bytes() + b"a note of mine")
    (line,) = store(tmp_path, head="knn")
    assert str(book) in line and "set aside" in line
    assert (tmp_path / "results.xlsx.damaged").read_bytes().endswith(b"a note of mine")
    assert store(tmp_path, head="knn") == []
    book.write_bytes(book.read_bytes() + b"another")
    assert "results.xlsx.damaged-1" in store(tmp_path, head="knn")[0]
    assert (tmp_path / "results.xlsx.damaged").read_bytes().endswith(b"a note of mine")


def test_so_it_is_where_the_table_itself_is_damaged(tmp_path: Path) -> None:
    store(tmp_path, head="logreg")
    book = tmp_path / "results.xlsx"
    book.write_bytes(book.read_bytes() + b"a note of mine")
    (tmp_path / "results.parquet").write_bytes(b"junk")
    (line,) = store(tmp_path, head="knn")
    assert "results.xlsx.damaged" in line and (tmp_path / "results.xlsx.damaged").read_bytes().endswith(b"of mine")


HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", "<b>bold</b>", "plain"]


def test_text_that_looks_like_a_formula_is_text_in_csv_and_workbook(tmp_path: Path) -> None:
    for name in HOSTILE:
        store(tmp_path, dataset=name)
    csv = pl.read_csv(tmp_path / "results.csv", infer_schema=False)["dataset"].unique().to_list()
    assert not [text for text in csv if text.startswith(FORMULA_STARTS)]
    with zipfile.ZipFile(tmp_path / "results.xlsx") as book:
        sheets = [book.read(name).decode() for name in book.namelist() if "worksheets/sheet" in name]
    assert sheets and not any(re.search(r"<f[ >]", sheet) for sheet in sheets)
    back = pl.read_excel(tmp_path / "results.xlsx", sheet_name="Results")["dataset"].unique().to_list()
    assert {text.strip() for text in back} == {text.strip() for text in HOSTILE}


def test_another_program_reads_the_same_numbers_from_the_workbook(tmp_path: Path) -> None:
    store(tmp_path)
    stored = tables.read(tmp_path)[0]
    book = pl.read_excel(tmp_path / "results.xlsx", sheet_name="Results")
    for name in ("precision", "recall", "f1", "support", "accuracy", "accuracy_low", "brier"):
        assert book[name].cast(pl.Float64).to_list() == pytest.approx(stored[name].cast(pl.Float64).to_list())
    assert pl.read_excel(tmp_path / "results.xlsx", sheet_id=1, read_options={"header_row": 1})["Head"].to_list() == [
        "logreg"
    ]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(ResultsError, match="Cannot write"):
        store(tmp_path / "results")


@pytest.mark.parametrize("lacking", ["perturbation", "brier"])
def test_a_file_of_an_earlier_version_is_read_and_its_rows_stay(tmp_path: Path, lacking: str) -> None:
    """It lacks newer columns: their text is empty, as it is in ordinary rows, and their numbers are null."""
    made = predictions(dataset="old")
    for name, frame in (("results", table(made)), ("predictions", made)):
        old = frame.drop(lacking, strict=False)
        (tmp_path / f"{name}.parquet").write_bytes(tables.parquet_bytes(old))
    assert store(tmp_path, dataset="new") == []
    stored = tables.read(tmp_path)[0].filter(pl.col("dataset") == "old")
    assert len(stored) == 3 and stored[lacking].to_list() == (["", "", ""] if lacking == "perturbation" else [None] * 3)


def test_predictions_of_an_earlier_version_get_the_probabilities_that_they_imply_and_verify(tmp_path: Path) -> None:
    """Their rows of results lack the later figures, which is no difference."""
    made = predictions(dataset="old")
    old = {
        "results": table(made).drop(columns.LATER),
        "predictions": made.drop("probabilities", "p_predicted", "p_label"),
    }
    for name, frame in old.items():
        (tmp_path / f"{name}.parquet").write_bytes(tables.parquet_bytes(frame))
    store(tmp_path, dataset="new")
    stored, read = tables.read(tmp_path)
    assert tables.verify(tmp_path) == []
    assert stored.filter(pl.col("dataset") == "old")["log_loss"].null_count() == 3
    assert stored.filter(pl.col("dataset") == "new")["log_loss"].null_count() == 0
    for row in read.iter_rows(named=True):
        odds = dict(zip(["FAKE", "REAL"], row["probabilities"], strict=True))
        assert row["p_real"] == odds["REAL"] and sum(odds.values()) == 1
        assert (row["p_predicted"], row["p_label"]) == pytest.approx((odds[row["predicted"]], odds[row["label"]]))
    csv = pl.read_csv(tmp_path / "predictions.csv")
    assert [json.loads(text) for text in csv["probabilities"]] == read["probabilities"].to_list()


def test_the_documented_columns_are_those_that_are_written() -> None:
    documented = re.findall(r"^\| `(\w+)` \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    both = [*columns.RESULTS.items(), *columns.PREDICTIONS.items()]
    assert documented == [(name, meaning) for name, (_, meaning) in both]


def test_test_data_with_other_images_gets_a_name_of_its_own(tmp_path: Path) -> None:
    def images(content: str, count: int = 20) -> pl.DataFrame:
        return predictions(images=count).select("path", sha256=pl.concat_str(pl.lit(content), "sha256"))

    def store(content: str, head: str) -> str:
        name = tables.free_name(tables.other_images(tmp_path), "fresh", images(content))
        about = {"test": "other", "test_data": name, "images": "x"}
        made = predictions(head=head).with_columns(
            images(content)["sha256"], **{k: pl.lit(v) for k, v in about.items()}
        )
        tables.store(tmp_path, table(made), made)
        return name

    assert store("one", "logreg") == "fresh"
    assert store("two", "knn") == "fresh 2", "though no row has the same head"
    assert store("one", "knn") == "fresh" and store("two", "logreg") == "fresh 2"
    assert tables.free_name(tables.other_images(tmp_path), "fresh", images("one", 2)) == "fresh", (
        "fewer of the same images"
    )
    assert tables.free_name(tables.other_images(tmp_path), "fresh", images("three")) == "fresh 3"
    assert set(tables.read(tmp_path)[0].select("test_data", "head").unique().rows()) == {
        (name, head) for name in ("fresh", "fresh 2") for head in ("logreg", "knn")
    }
