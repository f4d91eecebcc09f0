"""Rows adapted to the unlabelled test images: what they are, and that nothing else is mixed with them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from trees import cifake_files, coloured_files, write_folder

from toolkit.cli import main as cli
from toolkit.data.labels import Labels
from toolkit.errors import SelectionError
from toolkit.evaluation import columns
from toolkit.evaluation.adapted import Share, line
from toolkit.results import tables
from toolkit.results.entrants import subject
from toolkit.results.report import page
from toolkit.results.summary import left_out_means, over_seeds, summary
from toolkit.results.workbook import changed_images

TWO = Labels.of(["FAKE", "REAL"])


def call(home: Path, *words: str) -> Result:
    place = ["--data", home / "data", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    sizes = ["--train-per-label", "12", "--test-per-label", "5", "--split", "cat,dog"]
    return CliRunner().invoke(cli.cli, [words[0], *map(str, place), *sizes, *words[1:]])


Rows = tuple[pl.DataFrame, pl.DataFrame]


def with_two_seeds(table: pl.DataFrame) -> pl.DataFrame:
    """The table, and once more as that of another seed."""
    return pl.concat([table, table.with_columns(seed=pl.col("seed") + 1)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, Rows, str]:
    """Results without adapted rows, and with them, and what was printed."""
    home = tmp_path_factory.mktemp("adapted")
    write_folder(home / "data", cifake_files(8, 4))
    assert call(home, "embed").exit_code == 0
    wanted = ["compare", "--perturb", "blur:1", "--heads", "zero-shot,logreg"]
    assert call(home, *wanted).exit_code == 0
    before = tables.read(home / "results")
    done = call(home, *wanted, "--adapt", "--real-share", "0.3")
    assert done.exit_code == 0, done.output
    return home, before, tables.read(home / "results"), done.output


def test_the_assumed_share_is_called_and_the_ranking_stays(made: tuple[Path, Rows, Rows, str]) -> None:
    _, _, (table, predictions), _ = made
    same = [name for name in columns.KEY if name != columns.ADAPTED]
    both = predictions.filter(pl.col(columns.ADAPTED) == "").join(
        predictions.filter(pl.col(columns.ADAPTED) == "REAL=0.3"), on=[*same, "path"], nulls_equal=True, suffix="_new"
    )
    assert len(both) == len(predictions) / 2
    for _, rows in both.filter(pl.col("head") == "logreg").group_by(same):
        old, new = (np.log(rows[name] / (1 - rows[name])).to_numpy() for name in ("p_real", "p_real_new"))
        np.testing.assert_allclose(new - old, (new - old)[0], atol=1e-6)
        called = set(rows.filter(pl.col("predicted_new") == "REAL")["path"])
        assert called == set(rows.sort("p_real", descending=True).head(round(0.3 * len(rows)))["path"])
    areas = table.filter((pl.col("class") == "all") & (pl.col("head") == "logreg"))
    assert (areas.group_by(same).agg(pl.col("roc_auc").n_unique())["roc_auc"] == 1).all()


def test_every_other_row_is_what_it_was(made: tuple[Path, Rows, Rows, str]) -> None:
    home, before, after, _ = made
    for old, new in zip(before, after, strict=True):
        mine = new.filter(pl.col(columns.ADAPTED) == "")
        what = [name for name in old.columns if name not in ("created", *columns.TIMES)]
        assert mine.select(what).equals(old.select(what), null_equal=True)
    adapted = after[0].filter(pl.col(columns.ADAPTED) != "")
    nothing = ["p_best", "p_best_corrected", "selection_bias", "chosen_threshold", columns.AT_THRESHOLD]
    assert len(adapted) == len(before[0]) and all(adapted[name].null_count() == len(adapted) for name in nothing)
    verified = CliRunner().invoke(cli.cli, ["verify-results", "--results", str(home / "results")])
    assert "0 differ" in verified.output


def test_means_summaries_page_and_choice_are_of_the_other_rows(made: tuple[Path, Rows, Rows, str]) -> None:
    home, before, after, _ = made
    for made_of in (summary, left_out_means, over_seeds, changed_images):
        of_old, of_new = (made_of(with_two_seeds(rows[0])) for rows in (before, after))
        what = [name for name in of_old.columns if name not in ("created", *columns.TIMES)]
        assert of_new.select(what).equals(of_old.select(what), null_equal=True), made_of.__name__
    shown, then = subject(*after), subject(*before)
    of_each = [[(entrant.key, entrant.scores) for entrant in one.entrants] for one in (shown, then)]
    assert of_each[0] == of_each[1] and len(shown.changed) == len(then.changed)
    assert "REAL=0.3" not in page.write(home / "results").page.read_text().replace("--real-share", "")
    picked = CliRunner().invoke(
        cli.cli,
        ["predict", str(home / "data/test/REAL"), "--cache", f"{home}/cache", "--results", f"{home}/results", "--csv"],
    )
    assert picked.exit_code == 0 and "REAL=0.3" not in picked.output


def test_the_terminal_has_a_table_of_its_own_without_a_star(made: tuple[Path, Rows, Rows, str]) -> None:
    _, _, (table, _), output = made
    own = output[output.index("Adapted to the test images, REAL=0.3") :]
    assert "★" not in own and "≈" not in own
    rows = table.filter((pl.col("class") == "all") & (pl.col("head") == "logreg") & (pl.col("test") == "novel"))
    mine = rows.filter(pl.col("perturbation") == "")
    means = [float(mine.filter(pl.col(columns.ADAPTED) == which)["accuracy"].mean()) for which in ("", "REAL=0.3")]
    assert any(f"{means[0]:.3f}" in one and f"{means[1]:.3f}" in one for one in own.splitlines() if "logreg" in one)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.75, 0.99])
def test_the_line_has_the_nearest_number_above_it(share: float) -> None:
    odds = np.random.default_rng(0).normal(size=41)
    assert int((odds > line(odds, share)).sum()) == round(41 * share)
    assert line(np.array([-3.0, -1.0, 2.0, 4.0]), 0.5) == np.median([-3.0, -1.0, 2.0, 4.0])


def test_what_can_be_said_of_a_share() -> None:
    assert str(Share.of(TWO)) == "REAL=0.5"
    assert Share.of(TWO, "FAKE = 0.2") == Share("FAKE", 0.2)
    assert Share.of(Labels.of(["cats", "dogs"]), "cats=0.4") == Share("cats", 0.4)
    for said, of_real in (("DOG=0.3", None), ("0.3", None), ("REAL=x", None), ("REAL=1", None), (None, 1.5)):
        with pytest.raises(SelectionError, match="share"):
            Share.of(TWO, said, of_real)
    with pytest.raises(SelectionError, match="--share dogs=0.3"):
        Share.of(Labels.of(["cats", "dogs"]), of_real=0.3)


def test_a_share_without_adapt_or_with_three_labels_ends_in_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", coloured_files(["a", "b", "c"], 3, 2))
    common = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "r")]
    three = CliRunner().invoke(cli.cli, ["compare", *common, "--adapt"])
    assert three.exit_code == 2 and "two labels" in three.output
    alone = CliRunner().invoke(cli.cli, ["compare", *common, "--real-share", "0.3"])
    assert alone.exit_code == 2 and "belong to --adapt" in alone.output


def test_results_without_the_column_are_read(made: tuple[Path, Rows, Rows, str], tmp_path: Path) -> None:
    _, before, _, _ = made
    for name, frame in zip((tables.RESULTS, tables.PREDICTIONS), before, strict=True):
        (tmp_path / f"{name}.parquet").write_bytes(tables.parquet_bytes(frame.drop(columns.ADAPTED)))
    assert all(one.equals(old, null_equal=True) for one, old in zip(tables.read(tmp_path), before, strict=True))
