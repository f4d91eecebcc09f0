"""The same command on the same machine gives the same bytes, times aside, from an empty cache as well."""

from pathlib import Path

import polars as pl
from click.testing import CliRunner
from trees import cifake_files, jpeg, write_folder

from toolkit.cli import main as cli


def run(home: Path, place: Path) -> dict[str, bytes]:
    """Everything at once, in new folders -> the tables without the time of day."""
    shared = ["--data", home / "data", "--cache", place / "cache", "--results", place / "results", "--model", "nano"]
    shared += ["--train-per-label", "12", "--test-per-label", "4", "--seed", "1"]
    heads = ["--heads", "zero-shot,logreg,knn,cnn,shortcut", "--perturb", "jpeg:75,noise:4", "--test-data"]
    for words in (["embed", *shared], ["compare", *shared, *heads, home / "other"]):
        result = CliRunner().invoke(cli.cli, [str(word) for word in words])
        assert result.exit_code == 0, result.output
    verified = CliRunner().invoke(cli.cli, ["verify-results", "--results", str(place / "results")])
    assert ": 0 differ" in verified.output, verified.output
    tables = {name: pl.read_csv(place / "results" / name) for name in ("results.csv", "predictions.csv")}
    return {name: table.drop("created", strict=False).write_csv().encode() for name, table in tables.items()}


def test_the_same_commands_in_empty_folders_give_the_same_bytes(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", cifake_files(7, 3))
    other = {f"test/{label}/{n}.jpg": jpeg(700 + n, label, 40) for label in ("FAKE", "REAL") for n in range(4)}
    write_folder(tmp_path / "other", other)
    first, second = (run(tmp_path, tmp_path / name) for name in ("first", "second"))
    assert first == second and b"noise:4" in first["results.csv"] and b"other" in first["results.csv"]
