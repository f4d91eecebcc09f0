"""What rows cost, where people read it: page, workbook, terminal."""

import itertools
from pathlib import Path

import polars as pl
import pytest
from folders import SECONDS, Images, Seconds, priced, store, study

from toolkit.cli.tables import tables as terminal_tables
from toolkit.evaluation import columns
from toolkit.results import tables
from toolkit.results.costs import cost_table, duration, in_words
from toolkit.results.entrants import Subject, subject
from toolkit.results.report import page, price, verdict


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("data"))


def folder(home: Path, images: Images, seconds: Seconds = SECONDS, on: str = "a (fp32)") -> Path:
    return priced(store(home, study(images)), seconds, on)


def shown(where: Path) -> Subject:
    return subject(*tables.read(where))


def test_the_frontier_is_of_those_that_no_other_beats_in_both(images: Images, tmp_path: Path) -> None:
    priced = price.priced(found := shown(folder(tmp_path, images)))
    assert [one.cost.until_answer for one in priced if one.cost] == pytest.approx(sorted(SECONDS.values()))
    points = {one.key: (one.cost.until_answer or 0, one.scores["novel"].mean) for one in priced if one.cost}
    beaten = {
        key
        for (key, mine), (_, other) in itertools.permutations(points.items(), 2)
        if other[0] <= mine[0] and other[1] >= mine[1]
    }
    frontier = {one.key for one in price.frontier(priced, found.decides)}
    assert frontier == set(points) - beaten and 0 < len(frontier) < len(priced)


def test_the_verdict_says_the_price_of_a_point(images: Images, tmp_path: Path) -> None:
    found = shown(folder(tmp_path, images))
    reached = verdict.reach(found)
    assert reached is not None
    said = {one.challenger.way: price.sentence(found, one) for one in reached.contests}
    duels = {one.challenger.way: one.duels["novel"] for one in reached.contests}
    assert said["probe"].startswith("The probe costs 2.0 s once, instead of nothing, and gains ")
    last, duel = reached.contests[-1], duels["finetune"]
    assert last.holder.cost and duel.sure
    extra = 82.0 - (last.holder.cost.until_answer or 0)
    assert f"{duration(extra / (100 * duel.difference))} for each point" in said["finetune"]
    assert f"{verdict.signed(duel.low)} to {verdict.signed(duel.high)}" in said["finetune"]
    assert said["finetune"].partition(":")[0] in page.write(tmp_path).lead


def test_a_gain_that_chance_explains_is_called_so(images: Images, tmp_path: Path) -> None:
    same = {pair: (0.7, 0.7) for pair in SECONDS}
    made = store(tmp_path, study(images, same))
    table, predictions = tables.read(made)
    paid = table.with_columns(embedding_seconds=pl.lit(1.0), training_seconds=pl.lit(1.0), fitting_seconds=pl.lit(1.0))
    tables.store(made, paid, predictions)
    said = page.write(made).page.read_text()
    assert "costs as much as the prompts (3.0 s against 3.0 s) and gains nothing that chance" in said


@pytest.mark.parametrize(
    ("prompts", "probe", "said"),
    [
        (0.016, 40.0, "The probe costs 40 s once, instead of nothing, and"),
        (2.0, 300.0, "The probe costs 5.0 min once, instead of 2.0 s, and"),
        (0.016, 0.05, "The probe costs next to nothing, like the prompts, and"),
        (3.0, 0.05, "The probe costs nothing, instead of 3.0 s, and"),
        (3.0, 6.0, "The probe costs 2.0 times the prompts (6.0 s against 3.0 s) and"),
    ],
)
def test_a_ratio_is_said_only_of_prices_that_compare(
    images: Images, tmp_path: Path, prompts: float, probe: float, said: str
) -> None:
    shares = {("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.9, 0.9)}
    seconds = {("base", "zero-shot"): prompts, ("base", "logreg"): probe}
    lead = page.write(priced(store(tmp_path, study(images, shares)), seconds)).lead
    assert said in lead
    assert ("for each point" in lead) is (probe - prompts >= 40), "less than a second for a point is not worth a word"


def test_the_page_draws_cost_and_leaves_it_out_where_nothing_was_measured(images: Images, tmp_path: Path) -> None:
    written = page.write(folder(tmp_path / "new", images))
    html = written.page.read_text()
    assert "What it costs" in html and "Measured on a (fp32)." in html
    assert "among those that use CLIP, no other is both cheaper and more accurate" in html
    assert {"cost.svg", "cost.png"} <= {path.name for path in written.pictures}
    old = page.write(store(tmp_path / "old", study(images)))
    assert "What it costs" not in old.page.read_text() and "costs" not in old.lead


def test_rows_without_a_cost_stay_out_of_the_chart_and_stay_in_the_table(images: Images, tmp_path: Path) -> None:
    found = shown(folder(tmp_path, images, {("base", "logreg"): 2.0, ("base", "zero-shot"): 1.0}))
    assert {one.head for one in price.priced(found)} == {"logreg", "zero-shot"} and len(price.priced(found)) == 2
    assert len(found.entrants) == 4 and "fine-tuning" not in page.write(tmp_path).lead.lower().partition("costs")[2]


def test_the_page_says_that_seconds_of_several_machines_do_not_compare(images: Images, tmp_path: Path) -> None:
    html = page.write(folder(tmp_path, images, on="a + b (fp32)")).page.read_text()
    assert "several machines" in html and "a + b (fp32)" in html


def test_the_workbook_has_a_sheet_and_the_terminal_a_line(images: Images, tmp_path: Path) -> None:
    made = folder(tmp_path, images)
    table, predictions = tables.read(made)
    sheet = pl.read_excel(made / "results.xlsx", sheet_name="Cost", read_options={"header_row": 1})
    assert sheet["Seconds until it can answer"].to_list() == pytest.approx(cost_table(table)["until_answer_seconds"])
    assert sorted(sheet["Seconds until it can answer"]) == pytest.approx(sorted(SECONDS.values()))
    captions = [str(one.caption) for one in terminal_tables(table, predictions)]
    assert "base zero-shot 10 ms, logreg 2.0 s, then 2.0 ms an image; finetuned zero-shot 90 s" in captions[0]
    assert tables.verify(made) == []


def test_without_a_measurement_there_is_no_sheet_and_no_line(images: Images, tmp_path: Path) -> None:
    table, _ = tables.read(store(tmp_path, study(images)))
    assert cost_table(table).is_empty() and in_words(table) == ""
    assert set(columns.TIMES) <= set(table.columns)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.00005, "0.05 ms"),
        (0.006, "6.0 ms"),
        (0.0999, "0.1 s"),
        (6.04, "6.0 s"),
        (105, "105 s"),
        (720, "12 min"),
        (9e3, "2.5 h"),
    ],
)
def test_durations_have_two_digits_or_three(seconds: float, words: str) -> None:
    assert duration(seconds) == words
