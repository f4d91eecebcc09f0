"""The commands as a user types them."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import polars as pl
import pytest
from click.testing import CliRunner, Result
from folders import without_times
from places import ROOT
from trees import cifake_files, jpeg, out_of_reach, write_folder

from toolkit.cli import main as cli
from toolkit.errors import ResultsError
from toolkit.results import tables


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CIFAKE on which everything was run."""
    home = tmp_path_factory.mktemp("study")
    write_folder(home / "cifake", cifake_files(8, 6))
    result = call("run", *options(home), "--epochs", 2, "--batch-size", 8)
    assert result.exit_code == 0, result.output
    (home / "output").write_text(result.output)
    return home


def options(home: Path) -> list[str | Path]:
    sizes: list[str | Path] = ["--train-per-label", "12", "--test-per-label", "5", "--model", "nano"]
    return ["--data", home / "cifake", "--cache", home / "cache", "--results", home / "results", *sizes]


def test_run_does_the_whole_study_and_says_what_it_did(study: Path) -> None:
    output = (study / "output").read_text()
    assert output.splitlines()[0].startswith("Data: CIFAKE in the folder")
    assert "Fine-tuned without cat" in output
    table = pl.read_csv(study / "results/results.csv")
    assert table.columns[:11] == (
        ["dataset", "held_out", "encoder", "head", "test", "class", "precision", "recall", "f1", "support", "accuracy"]
    )
    ways = {encoder: set(rows["head"]) for (encoder,), rows in table.group_by("encoder")}
    probes = {"logreg", "layer-probes", "knn"}
    with_prompts = {"zero-shot", *probes}
    assert ways == {"base": with_prompts, "blocks": probes, "finetuned": with_prompts, "file facts": {"shortcut"}}
    assert len(table) == 12 * 2 * 3
    assert "Written: " in output and (study / "results/report.html").exists()
    assert set(table["dataset"]) == {"cifake"} and set(table["held_out"]) == {"cat"}
    assert table.filter(pl.col("class") != "all")["support"].to_list() == [5] * 48


def test_run_says_each_step_and_ends_with_commands_that_work(study: Path) -> None:
    output = (study / "output").read_text()
    assert [line[:5] for line in output.splitlines() if line.startswith("[")] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    commands = [shlex.split(line) for line in output.partition("Next:\n")[2].splitlines() if "cli.py" in line]
    assert [words[2] for words in commands] == ["predict", "run", "data"] and commands[1][-2:] == ["--split", "all"]
    for _, _, name, *words in commands:
        group = cli.cli.commands[name]
        command = getattr(group, "commands", {}).get(words[0], group)
        command.make_context(name, words[command is not group :])  # raises for what it does not take
    pictures = [str(study / "cifake/test/REAL") if word == "YOUR_PICTURES/" else word for word in commands[0][2:]]
    assert call(*pictures, "--json").exit_code == 0


def test_two_folders_of_pictures_need_no_option(tmp_path: Path) -> None:
    pictures = {f"{kind}/{n}.jpg": jpeg(n + 500 * (kind == "dog")) for kind in ("cat", "dog") for n in range(30)}
    data = write_folder(tmp_path / "pets", pictures)
    words = ["--model", "nano", "--cache", tmp_path / "cache", "--results", tmp_path / "results"]
    assert call("embed", "--data", data, *words).exit_code == 0
    compared = call("compare", "--data", data, *words, "--heads", "logreg")
    assert compared.exit_code == 0 and "drawn as test split" in compared.output
    assert set(pl.read_csv(tmp_path / "results/results.csv")["class"]) == {"cat", "dog", "all"}


def test_the_second_embed_embeds_nothing(study: Path) -> None:
    result = call("embed", *options(study), "--json")
    facts = json.loads(result.stdout)
    assert (facts["embedded"], facts["prompts"]) == (0, 0) and facts["cached"] > 0


def test_compare_works_from_the_cache_without_torch_or_open_clip(study: Path) -> None:
    code = (
        "import sys\nfrom toolkit.cli import main as cli\n"
        "try: cli.cli()\n"
        "finally: print(sorted({'torch', 'open_clip'} & set(sys.modules)), file=sys.stderr)\n"
    )
    words = [sys.executable, "-c", code, "compare", *map(str, options(study))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("[]")


def test_comparing_again_gives_the_same_bytes_but_for_the_time(study: Path) -> None:
    before = without_times(pl.read_csv(study / "results/results.csv"))
    assert call("compare", *options(study)).exit_code == 0
    assert without_times(pl.read_csv(study / "results/results.csv")).equals(before)


def test_another_comparison_adds_its_rows_and_keeps_the_others(study: Path, tmp_path: Path) -> None:
    place = ["--results", tmp_path]
    assert call("compare", *options(study), *place).exit_code == 0
    first = pl.read_csv(tmp_path / "results.csv")
    assert call("compare", *options(study), *place, "--heads", "logreg", "--choose-by", "folds").exit_code == 0
    both = pl.read_csv(tmp_path / "results.csv")
    assert len(both) == len(first) + 3 * 2 * 3
    assert set(both["chosen_by"].drop_nulls()) >= {"category", "folds"}


def test_every_result_can_be_recomputed_from_the_predictions(study: Path) -> None:
    result = call("verify-results", "--results", study / "results")
    assert result.exit_code == 0 and ": 0 differ" in result.output


def test_without_fine_tuning_its_rows_are_missing_and_a_line_says_which_command_makes_them(study: Path) -> None:
    result = call("embed", *options(study), "--split", "dog")
    assert result.exit_code == 0
    result = call("compare", *options(study), "--split", "dog", "--results", study / "other")
    assert "python cli.py finetune" in result.output and "--split dog" in result.output
    assert set(pl.read_csv(study / "other/results.csv")["encoder"]) == {"base", "file facts"}


def test_one_line_names_all_values_without_which_no_encoder_is_fine_tuned(study: Path) -> None:
    everywhere = [*options(study), "--split", "all"]
    assert call("embed", *everywhere).exit_code == 0
    result = call("compare", *everywhere, "--heads", "knn", "--results", study / "every")
    said = " ".join(result.output.split())
    assert result.exit_code == 0 and said.count("No encoder is fine-tuned") == 1, result.output
    assert "No encoder is fine-tuned without airplane, automobile and dog on these images: python cli.py" in said


def test_data_suspects_says_what_the_probe_did_not_learn(study: Path) -> None:
    assert call("embed", *options(study), "--split", "none").exit_code == 0
    held_out, none = (call("data", "suspects", *options(study), *more) for more in ([], ["--split", "none"]))
    assert held_out.exit_code == none.exit_code == 0
    assert "The probe learned nothing of cat" in held_out.output and "learned nothing" not in none.output


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("cache/nano*/images-*.h5", "compare"),
        ("cache/nano*/texts-*.h5", "compare"),
        ("cache/nano*/encoder.json", "compare"),
        ("cache/checkpoints/*/weights.safetensors", "finetune"),
        ("cache/checkpoints/*/record.json", "finetune"),
        ("results/results.parquet", "compare"),
    ],
)
def test_a_file_that_cannot_be_read_now_is_one_line_that_names_it_and_is_never_set_aside(
    study: Path, tmp_path: Path, name: str, command: str
) -> None:
    home = Path(shutil.copytree(study, tmp_path / "study", ignore=shutil.ignore_patterns("every", "other")))
    more = ["--epochs", 2, "--batch-size", 8] if command == "finetune" else []
    words = [command, *options(home), *more]
    place = sorted(home.glob(name))[0]
    with out_of_reach(place):
        refused = call(*words)
    assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1, refused.output
    assert place.name in refused.stderr and not list(home.rglob("*.damaged*"))
    again = call(*words)
    assert again.exit_code == 0 and "set aside" not in again.output, again.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "--split", "unicorn"], "cat"),
        (["compare", "--full", "--train-per-label", "10"], "leave --train-per-label out"),
        (["compare", "--test-per-label", "10", "--full"], "leave --test-per-label out"),
        (["embed", "--data", "no/such/place"], "no/such/place"),
        (["compare", "--cache", "/nowhere/at/all"], "python cli.py embed"),
        (["embed", "--labels", "REAL,UNREAL"], "UNREAL"),
        (["embed", "--prompt", "nonsense"], "LABEL=TEXT"),
        (["finetune", "--recipe", "secret"], "study"),
        (["cache", "remove", "nothing"], "cache list"),
        (["verify-results", "--results", "/nowhere"], "compare"),
        (["embed", "--model", "ViT-B-23"], "ViT-B-32"),
    ],
)
def test_a_users_mistake_is_one_line_with_a_remedy_and_exit_code_2(words: list[str], says: str) -> None:
    result = call(*words)
    lines = [line for line in result.stderr.splitlines() if line]
    assert result.exit_code == 2 and len(lines) == 1, result.output
    assert lines[0].startswith("Error:") and says in lines[0] and "Traceback" not in result.output


def test_what_is_not_embedded_is_told_with_what_the_cache_has(study: Path) -> None:
    listed = json.loads(call("cache", "list", "--cache", study / "cache", "--json").stdout)
    larger = call("compare", *options(study), "--train-per-label", 20)
    (count,) = (one["images"] for one in listed if one["kind"] == "base")
    assert larger.exit_code == 2 and f"({count} images of this encoder are in the cache" in larger.stderr
    other = call("compare", *options(study)[:-1], "ViT-B-32")
    assert other.exit_code == 2 and "(the cache has: nano)" in other.stderr


def test_too_many_unreadable_images_are_an_error_after_all_good_ones_are_safe(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cifake", cifake_files(8, 6))
    (folder / "train/REAL/0001.jpg").write_bytes(b"no picture")
    result = call("embed", *options(tmp_path))
    assert result.exit_code == 2 and "skipped.csv" in result.stderr
    listed = pl.read_csv(tmp_path / "results/skipped.csv")
    assert listed["path"].to_list() == ["train/REAL/0001.jpg"]
    again = call("compare", *options(tmp_path))
    assert again.exit_code == 0, "the next image took its place"
    assert pl.read_csv(tmp_path / "results/results.csv")["train_rows"].unique().to_list() == [24]


@pytest.mark.parametrize("name", ["finetune", "compare", "verify-results", "report", "predict", "data"])
def test_with_json_standard_output_is_json_and_nothing_else(study: Path, name: str) -> None:
    of_plan, cache, results = options(study), ["--cache", study / "cache"], ["--results", study / "results"]
    words = {
        "finetune": [*of_plan, "--epochs", 2, "--batch-size", 8],
        "compare": of_plan,
        "verify-results": results,
        "report": [*results, *cache],
        "predict": [study / "cifake/test", *results, *cache],
        "data": ["--data", study / "cifake"],
    }
    result = call(name, *words[name], "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)


def test_cache_list_verify_and_remove_speak_json(study: Path) -> None:
    place = ["--cache", study / "cache", "--json"]
    listed = json.loads(call("cache", "list", *place).stdout)
    assert {one["kind"] for one in listed} == {"base", "blocks", "finetuned", "file facts"}
    assert all(one["state"] == "whole" for one in json.loads(call("cache", "verify", *place).stdout))


def test_every_command_shows_an_example_and_every_option_a_help() -> None:
    def walk(group: object, name: str):  # noqa: ANN202
        for key, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                yield from walk(command, f"{name} {key}")
            else:
                yield f"{name} {key}", command

    for name, command in walk(cli.cli, "python cli.py"):
        assert (command.epilog or "").startswith("Example: ") and name in (command.epilog or ""), name
        assert all(p.help for p in command.params if isinstance(p, click.Option)), name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom toolkit.cli import main as cli\n"
        "try: cli.cli(['--help'])\nfinally: print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    modules = done.stderr
    assert all(f"'{name}'" not in modules for name in ("torch", "open_clip", "polars", "numpy", "sklearn", "faiss"))


def test_the_environment_sets_options(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(study / "cache"))
    assert json.loads(call("cache", "list", "--json").stdout)


def test_ctrl_c_ends_with_one_line_and_130_and_keeps_what_was_finished(tmp_path: Path) -> None:
    write_folder(tmp_path / "cifake", cifake_files(8, 6))
    words = [sys.executable, str(ROOT / "cli.py"), "finetune", *map(str, options(tmp_path)), "--epochs", "500"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    for _ in range(600):
        if list((tmp_path / "cache").rglob("epoch-*.json")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "python cli.py finetune" in errors and "Traceback" not in errors
    assert list((tmp_path / "cache").rglob("epoch-*.safetensors"))


def test_a_data_folder_that_vanishes_half_way_is_one_line_and_what_was_stored_stays(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cifake", cifake_files(8, 6))
    assert call("embed", *options(tmp_path)).exit_code == 0
    stored = json.loads(call("cache", "list", "--cache", tmp_path / "cache", "--json").stdout)
    for path in folder.rglob("*.jpg"):
        path.unlink()
    result = call("embed", *options(tmp_path))
    assert result.exit_code == 2 and result.stderr.startswith("Error:") and len(result.stderr.splitlines()) == 1
    write_folder(folder, cifake_files(8, 6))
    again = json.loads(call("embed", *options(tmp_path), "--json").stdout)
    assert again["embedded"] == 0 and again["cached"] == stored[0]["images"]


DAMAGES = int(os.environ.get("TOOLKIT_TEST_DAMAGES", "10"))


@pytest.fixture(scope="module")
def damaged_study(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, without what other tests' commands alone have read."""
    copy = Path(shutil.copytree(study, tmp_path_factory.mktemp("damaged") / "study"))
    for folder in ("near-copies", "fits"):
        shutil.rmtree(copy / "cache" / folder, ignore_errors=True)
    return copy


def can_be_read(study: Path) -> bool:
    """Whether a Parquet file can still be read: a changed bit need not affect its content."""
    try:
        tables.read(study / "results")
    except ResultsError:
        return False
    return True


@pytest.mark.parametrize("seed", range(DAMAGES))
def test_whatever_file_is_damaged_the_same_command_mends_it_and_gives_the_same_numbers(
    damaged_study: Path, seed: int
) -> None:
    rng = random.Random(seed)
    kept = [*(damaged_study / "cache").rglob("*"), *(damaged_study / "results").glob("*.*")]
    ours = (p for p in kept if p.is_file() and p.suffix != ".lock" and ".damaged" not in p.name)
    files = sorted(p for p in ours if p.stat().st_size)
    expected = without_times(pl.read_csv(damaged_study / "results/results.csv"))
    hurt = rng.choice(files)
    data = bytearray(hurt.read_bytes())
    kind = rng.choice(["flip", "truncate", "empty", "delete", "garbage"])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    changed = {"flip": data, "truncate": data[: rng.randrange(len(data))], "empty": b"", "garbage": rng.randbytes(500)}
    hurt.unlink() if kind == "delete" else hurt.write_bytes(bytes(changed[kind]))
    harmless = hurt.name == "report.html" or (hurt.suffix == ".parquet" and can_be_read(damaged_study))

    result = call("run", *options(damaged_study), "--epochs", 2, "--batch-size", 8)
    assert result.exit_code == 0, f"{kind} {hurt}: {result.output}"
    naming = [line for line in result.output.splitlines() if str(hurt) in line and "set aside" in line]
    assert len(naming) == 1 or (not naming and (kind == "delete" or harmless)), f"{kind} {hurt}: {result.output}"
    assert hurt.exists() or hurt.suffix == ".h5", "it is made anew"
    now = without_times(pl.read_csv(damaged_study / "results/results.csv"))
    assert now.equals(expected, null_equal=True), f"{kind} {hurt}"
