"""More than two labels on the page, in the workbook and in the terminal: against scikit-learn and counting by hand."""

import html
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import Images, cache_vectors, predict, store, study
from rich.console import Console
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, log_loss

from toolkit.cli.tables import tables as terminal_tables
from toolkit.evaluation import columns
from toolkit.evaluation.scoring import score, with_harmonic_mean, with_p_best
from toolkit.results import classes, tables
from toolkit.results.report import label_charts, page, pictures

NASTY = "<script>alert(1)<∕script>"
LABELS = [*(f"kind {number:02}" for number in range(21)), NASTY]
SHARES = {("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.8, 0.5), ("finetuned", "knn"): (0.7, 0.8)}
EACH = 4
"""Test images of a label, on base and on novel."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-two labels, of which one holds HTML, with a category held out; one encoder is cached."""
    home = tmp_path_factory.mktemp("many")
    images = Images(home / "data", labels=LABELS, each=EACH)
    cache_vectors(home / "cache", "e0", images)
    facts = {"data": str(images.root), "cache": str(home / "cache")}
    folder = store(home / "results", study(images, SHARES), LABELS, **facts)
    page.write(folder)
    return folder


def text_of(folder: Path) -> str:
    source = re.sub(r"<(svg|script|style).*?</\1>", " ", (folder / "report.html").read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())


def table_of(folder: Path, name: str) -> list[list[str]]:
    found = re.search(rf'id="{name}">.*?<tbody>(.*?)</tbody>', (folder / "report.html").read_text(), re.DOTALL)
    assert found
    return [
        [html.unescape(one) for one in re.findall(r'data-value="([^"]*)"', row)]
        for row in found[1].split("</tr>")
        if "<td" in row
    ]


def predictions_of(folder: Path, head: str, test: str) -> pl.DataFrame:
    return tables.read(folder)[1].filter((pl.col("head") == head) & (pl.col("test") == test))


def test_the_page_never_speaks_as_if_there_were_two_labels(many: Path) -> None:
    said = text_of(many)
    assert "which of 22 labels an image has" in said
    assert not re.search(r"\b(REAL|FAKE|both labels|two labels)\b", said)
    assert "always answering the most frequent label (5 %)" in said


def test_labels_are_text_and_never_html(many: Path) -> None:
    source = (many / "report.html").read_text()
    assert source.count("<script>") == 1 and NASTY in text_of(many)


def test_the_averages_are_those_of_scikit_learn(many: Path) -> None:
    rows = table_of(many, "averages")
    assert [row[:2] for row in rows[:2]] == [["base CLIP · zero-shot", "base"], ["base CLIP · zero-shot", "novel"]]
    for row in rows:
        mine = predictions_of(many, row[0].split(" · ")[1], row[1])
        truth, called = mine["label"].to_list(), mine["predicted"].to_list()
        odds = mine["probabilities"].list.to_array(22).to_numpy()
        order = sorted(LABELS)  # scikit-learn's
        wanted = [
            balanced_accuracy_score(truth, called),
            f1_score(truth, called, average="macro", labels=LABELS, zero_division=0),
            log_loss(truth, odds[:, [LABELS.index(one) for one in order]], labels=order),
        ]
        assert [float(one) for one in row[2:5]] == pytest.approx(wanted)


def test_the_most_frequent_mistakes_are_named_in_words(many: Path) -> None:
    mine = predictions_of(many, "knn", "novel")
    wrong = Counter(one for one in zip(mine["label"], mine["predicted"], strict=True) if one[0] != one[1])
    said = re.findall(r"<li>(.+?) is called (.+?): (\d+) of (\d+)</li>", (many / "report.html").read_text())
    said = [tuple(map(html.unescape, one)) for one in said]
    assert [int(count) for _, _, count, _ in said] == sorted(wrong.values(), reverse=True)[:8]
    assert all(wrong[label, called] == int(count) and of == str(EACH) for label, called, count, of in said)


def test_pairs_come_from_the_matrix_and_correct_answers_are_none() -> None:
    matrix = np.array([[5, 1, 0], [4, 0, 2], [0, 0, 9]])
    found = classes.worst_pairs(matrix, ["a", "b", "c"], 2)
    assert [(one.label, one.called, one.count, one.of) for one in found] == [("b", "a", 4, 6), ("b", "c", 2, 6)]
    assert classes.worst_pairs(np.diag([3, 4]), ["a", "b"], 5) == []


def test_the_worst_labels_stand_first_and_a_sheet_has_the_others(many: Path) -> None:
    rows = table_of(many, "labels")
    mine = predictions_of(many, "knn", "novel").with_columns(right=pl.col("label") == pl.col("predicted"))
    recalls = dict(mine.group_by("label").agg(pl.col("right").mean()).iter_rows())
    assert [float(row[2]) for row in rows] == pytest.approx(sorted(recalls.values())[:20])
    assert all(float(row[2]) == pytest.approx(recalls[row[0]]) for row in rows)
    assert "The 20 worst of 22 labels" in text_of(many) and 'href="results.xlsx"' in (many / "report.html").read_text()


def test_the_reader_chooses_a_label_and_without_scripts_sees_the_worst(many: Path) -> None:
    source = (many / "report.html").read_text()
    options = re.findall(r'<option value="(\d+)">([^<]+)</option>', source)
    assert [html.unescape(label) for _, label in options] == [row[0] for row in table_of(many, "labels")][:10]
    shown = re.findall(r'<div class="choose"( hidden)?><h3>([^<]+)</h3>', source)
    assert shown == [("" if number == 0 else " hidden", label) for number, (_, label) in enumerate(options)]
    assert "<label hidden>" in source, "the list stands there only where the script runs"
    names = {path.name for path in (many / "pictures").iterdir()}
    assert {"confusion.svg", "label-1.svg", "label-10.png"} <= names and "roc.svg" not in names


def test_a_confusion_matrix_has_numbers_only_while_they_are_legible() -> None:
    def numbers(count: int) -> list[str]:
        matrix = np.full((count, count), 7)
        with pictures.drawing():
            drawn = label_charts.confusion_map(matrix, LABELS[:count], "confusion", "made")
        return re.findall(r"<text[^>]*>(\d+)</text>", drawn.inline)

    assert numbers(5) == ["7"] * 25 and numbers(20) == []


def test_thumbnails_show_the_surest_mistakes_with_both_labels_and_a_hit_of_each_label(many: Path) -> None:
    mine = predictions_of(many, "knn", "novel").sort("p_predicted", descending=True)
    wrong = mine.filter(pl.col("label") != pl.col("predicted"))
    found = re.findall(
        r'<figure class="thumb" title="([^"]+)">.*?<figcaption>(.*?)<br>P ',
        (many / "report.html").read_text(),
        re.DOTALL,
    )
    shown = [(html.unescape(path), html.unescape(said)) for path, said in found]
    mistakes = list(zip(wrong["path"], wrong["label"] + "<br>→ " + wrong["predicted"], strict=True))
    assert [one for one in shown if "→" in one[1]] == mistakes
    hits = mine.filter(pl.col("label") == pl.col("predicted")).unique("label", keep="first", maintain_order=True)
    assert [one for one in shown if "→" not in one[1]] == hits.select("path", "label").rows()[:20]


def sheet(folder: Path, name: str, header: int | None = 1) -> pl.DataFrame:
    options = {"header_row": header}
    return pl.read_excel(folder / "results.xlsx", sheet_name=name, read_options=options, has_header=header is not None)


def test_the_summary_sheet_has_averages_and_each_class_a_row_on_a_sheet_of_its_own(many: Path) -> None:
    table = tables.read(many)[0]
    every = table.filter((pl.col("class") == "all") & (pl.col("test") == "novel"))
    shown = sheet(many, "Summary")
    assert shown["Novel macro F1"].to_list() == pytest.approx(every["f1"].to_list())
    assert shown["Novel log loss"].to_list() == pytest.approx(every["log_loss"].to_list())
    assert not [name for name in shown.columns if "kind" in name]
    of_class = sheet(many, "Per class")
    assert len(of_class) == 22 * len(SHARES) * 2
    first = of_class.head(22)
    assert first["Recall"].to_list() == sorted(first["Recall"]) and set(first["Class"]) == set(LABELS)


def test_the_confusion_sheet_is_scikit_learns_matrix_of_the_most_accurate_head(many: Path) -> None:
    rows = sheet(many, "Confusion", header=None).rows()
    title = next(number for number, row in enumerate(rows) if "Test: novel" in (row[0] or ""))
    assert "Head: knn" in rows[title][0] and list(rows[title + 1][1:]) == LABELS
    counts = [[int(one or 0) for one in row[1:]] for row in rows[title + 2 : title + 24]]
    mine = predictions_of(many, "knn", "novel")
    assert np.array_equal(counts, confusion_matrix(mine["label"], mine["predicted"], labels=LABELS))


def test_mistakes_and_predictions_have_sheets(many: Path) -> None:
    mistakes, images = sheet(many, "Mistakes"), sheet(many, "Predictions")
    mine = pl.concat([predictions_of(many, "logreg", "base"), predictions_of(many, "knn", "novel")])
    assert mistakes["Images"].sum() == len(mine.filter(pl.col("label") != pl.col("predicted")))
    assert images["Path"].to_list() == mine["path"].to_list()
    assert images["P(predicted)"].to_list() == pytest.approx(mine["p_predicted"].to_list())


def test_two_labels_keep_their_sheets_and_columns(tmp_path: Path) -> None:
    folder = store(tmp_path / "results", study(Images(tmp_path / "data", each=2)))
    names = list(pl.read_excel(folder / "results.xlsx", sheet_id=0))
    assert names == ["Summary", "Results", "Definitions", "Settings"]
    headings = sheet(folder, "Summary").columns
    assert "Base FAKE recall" in headings and not [name for name in headings if "macro" in name.lower()]


def test_the_terminal_has_a_line_for_each_head_and_names_the_hardest_labels(many: Path) -> None:
    out = io.StringIO()
    for one in terminal_tables(*tables.read(many)):
        Console(file=out, width=160).print(one)
    said = out.getvalue()
    assert said.count(" zero-shot ") == 2 and "Macro F1" in said and "prec." not in said
    assert max(len(line.rstrip()) for line in said.splitlines()) <= 140
    worst = [f"{row[0]} {float(row[2]):.2f}" for row in table_of(many, "labels")[:3]]
    assert f"Lowest recall on novel (knn on finetuned): {', '.join(worst)}." in said


def test_new_labels_are_shown_among_themselves(tmp_path: Path) -> None:
    """Labels held out: each test set has labels of its own, and the probe is scored on base alone."""
    known, new = LABELS[:7], LABELS[7:10]
    about = {"held_out": "half", "split_by": "label", "labels": json.dumps([*known, *new])}
    base = Images(tmp_path / "base", labels=known, categories=("any",), each=4)
    novel = Images(tmp_path / "novel", labels=new, categories=("half",), each=4)
    novel.digest = base.digest  # one comparison
    frames = [(predict(base, 0.8, head=head, **about), known) for head in ("zero-shot", "logreg")]
    frames.append((predict(novel, 0.75, test="novel", head="zero-shot", **about), new))
    facts = {"train_rows": 70, "leaks_dropped": 0, "created": "2026-01-01 00:00:00"}
    rows = [{**row, **facts} for frame, labels in frames for row in score(frame, labels, 0)]
    every = pl.concat([frame for frame, _ in frames])
    table = with_p_best(pl.DataFrame(rows, schema=columns.schema(columns.RESULTS)), every)
    tables.store(tmp_path / "results", with_harmonic_mean(table), every)
    page.write(tmp_path / "results")
    said = text_of(tmp_path / "results")
    assert "3 new labels held out" in said and "a trained head cannot know new labels" in said
    averages = table_of(tmp_path / "results", "averages")
    assert [row[:2] for row in averages][-1] == ["base CLIP · logreg", "base"]
    accuracies = [
        table.filter((pl.col("head") == "zero-shot") & (pl.col("test") == test))["accuracy"][0]
        for test in ("base", "novel")
    ]
    assert float(averages[0][-1]) == pytest.approx(2 / sum(1 / one for one in accuracies))
    assert {row[0] for row in table_of(tmp_path / "results", "labels")} == set(new)
