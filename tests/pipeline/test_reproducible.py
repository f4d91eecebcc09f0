"""The same command on the same machine gives the same bytes, times aside, from an empty cache as well.

Times are the time of day and the seconds that a row cost."""

import re
from pathlib import Path

import polars as pl
from click.testing import CliRunner
from trees import cifake_files, jpeg, write_folder

from toolkit.cli import main as cli
from toolkit.evaluation import columns

TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def run(home: Path, place: Path) -> dict[str, bytes]:
    """Everything at once, in new folders -> the files' bytes, the time of day written over."""
    shared = ["--data", home / "data", "--cache", place / "cache", "--results", place / "results", "--model", "nano"]
    shared += ["--train-per-label", "12", "--test-per-label", "4", "--seed", "1"]
    heads = ["--heads", "zero-shot,logreg,knn,cnn,shortcut", "--perturb", "jpeg:75,noise:4", "--test-data"]
    for words in (["embed", *shared], ["compare", *shared, *heads, home / "other"]):
        result = CliRunner().invoke(cli.cli, [str(word) for word in words])
        assert result.exit_code == 0, result.output
    verified = CliRunner().invoke(cli.cli, ["verify-results", "--results", str(place / "results")])
    assert ": 0 differ" in verified.output, verified.output
    return {
        name: TIME.sub(b"<time>", without_seconds(place / "results" / name))
        for name in ("results.csv", "predictions.csv")
    }


def without_seconds(path: Path) -> bytes:
    """The file without the columns of measured seconds."""
    table = pl.read_csv(path, infer_schema=False)
    return table.drop(columns.TIMES, strict=False).write_csv().encode()


def test_the_same_commands_in_empty_folders_give_the_same_bytes(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", cifake_files(7, 3))
    other = {f"test/{label}/{n}.jpg": jpeg(700 + n, label, 40) for label in ("FAKE", "REAL") for n in range(4)}
    write_folder(tmp_path / "other", other)
    first, second = (run(tmp_path, tmp_path / name) for name in ("first", "second"))
    assert b"<time>" in first["results.csv"], "where the time of day is written has changed"
    assert first == second and b"noise:4" in first["results.csv"] and b"other" in first["results.csv"]
