"""How all commands behave towards people, pipes and scripts."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from places import ROOT
from rich.table import Table
from trees import cifake_files, write_folder

from toolkit.cli import main as cli
from toolkit.cli.group import Command, Commands, Option, variable_of
from toolkit.cli.output import print_table

PRINTS_NO_FACTS = {"completion"}


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.cli, list(words))


def walk(group: Commands, name: str = "") -> Iterator[tuple[str, click.Command]]:
    for key, command in group.commands.items():
        path = f"{name} {key}".strip()
        if not isinstance(command, Commands) or command.invoke_without_command:
            yield path, command
        if isinstance(command, Commands):
            yield from walk(command, path)


CLICK = tuple(int(part) for part in version("click").split(".")[:2])
COMMANDS = dict(walk(cli.cli))
each_command = pytest.mark.parametrize("name", COMMANDS)


@each_command
def test_every_command_has_its_options_in_sections(name: str) -> None:
    assert isinstance(COMMANDS[name], Command | Commands), (
        f"{name}: say @click.command(cls=Command), from commands.group"
    )
    assert all(isinstance(one, Option | click.Argument) for one in COMMANDS[name].params), f"{name}: say @option(...)"


@each_command
def test_every_command_that_prints_facts_prints_them_as_json(name: str) -> None:
    has_json = any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert has_json or name in PRINTS_NO_FACTS, f"{name}: add @as_json"


@each_command
def test_the_environment_sets_every_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = COMMANDS[name]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    for option in options:
        monkeypatch.setenv(variable_of(long_name(option)), a_value_of(option))
    parent = click.Context(cli.cli, **cli.cli.context_settings)
    context = command.make_context(name, [], parent, resilient_parsing=True)
    from_environment = click.core.ParameterSource.ENVIRONMENT
    deaf = [
        o.opts for o in options if o.expose_value and context.get_parameter_source(o.name or "") != from_environment
    ]
    assert not deaf


def long_name(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def a_value_of(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return str(option.type.choices[0])
    return "7" if option.metavar == "N" or option.is_flag or option.count else "x"


def test_the_first_page_shows_every_command_in_a_section_with_its_whole_description() -> None:
    shown = call("--help").stdout
    letters = "".join(shown.split())
    placed = {name for names in cli.cli.sections.values() for name in names}
    assert placed == set(cli.cli.commands), "give it a place: cli.add_section(…) in cli.py"
    assert "…" not in shown and "..." not in shown.split("Study:")[1]
    for command in cli.cli.commands.values():
        assert command.get_short_help_str(limit=1000).replace(" ", "") in letters


@each_command
@pytest.mark.parametrize("width", ["20", "80", "200"])
def test_help_fits_the_terminal(name: str, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    result = call(*name.split(), "-h")
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if not line.startswith("Example")]
    assert width == "20" or max(map(len, lines)) <= int(width)


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["embd"], "embed"),
        (["embed", "--trian-per-label", "3"], "--train-per-label"),
        (["compare", "--heads", "logrg"], "Did you mean logreg?"),
        (["finetune", "--recipe", "studi"], "Did you mean study?"),
        (["compare", "--split", "Flowers"], "Did you mean flower?"),
        (["compare", "--split", "unicorn"], "astronaut, cat, coffee"),
        (["embed", "--precision", "bf61"], "'bf16'"),
        (["embed", "extra"], "(extra)"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_right_one(words: list[str], right: str) -> None:
    result = call(*words)
    assert result.exit_code == 2 and right in result.stderr


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "cli.py", *words], cwd=ROOT, env=settings | environment, capture_output=True, text=True
    )


def test_without_a_command_the_help_is_shown() -> None:
    result = call()
    assert result.exit_code == 2 and "Usage:" in result.output and "finetune" in result.output


def test_a_terminal_without_our_characters_shows_question_marks_rather_than_a_traceback(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "★", cifake_files(2, 1))
    done = run("compare", "--data", str(data), "--cache", str(tmp_path), PYTHONIOENCODING="latin-1", PYTHONUTF8="1")
    assert done.returncode == 2 and done.stdout.startswith("Data: CIFAKE in the folder") and "?" in done.stdout
    assert "Traceback" not in done.stderr
    for settings in ({"LANG": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}):
        assert run("compare", "--help", **settings).returncode == 0


def test_a_closed_pipe_ends_a_command_without_a_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "cli.py", "embed", "--help"]
    done = subprocess.run(words, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1 and not done.stderr


def test_the_version_is_said_in_one_place() -> None:
    from toolkit.version import code_version

    said = cli.__version__
    assert said in call("--version").stdout and code_version().startswith(f"{said}+")
    assert f'"{said}"' not in (ROOT / "pyproject.toml").read_text().split("[project.optional")[0]


@pytest.mark.skipif(CLICK < (8, 5), reason="older versions of click write some usages otherwise")
def test_the_command_reference_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts/command_reference.py"))
    assert script["PAGE"].read_text() == script["reference"](), "run: python scripts/command_reference.py"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("python cli.py em", "embed"),
        ("python ./cli.py cache li", "list"),
        ("python cli.py embed --train-p", "--train-per-label"),
        ("python cli.py embed --precision b", "bf16"),
        ("python other.py em", ""),
    ],
)
def test_bash_completes_commands_options_and_values(typed: str, offered: str) -> None:
    words = typed.split()
    script = f"""
        eval "$({sys.executable} cli.py completion bash)"
        COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1}
        _python_cli_py {sys.executable}
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == offered, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there_for_the_installed_program(shell: str) -> None:
    assert "_CLIP_TOOLKIT_COMPLETE" in call("completion", shell).stdout
    words = {
        "COMP_WORDS": "clip-toolkit fine",
        "COMP_CWORD": "fine" if shell == "fish" else "1",
        "_CLIP_TOOLKIT_COMPLETE": f"{shell}_complete",
    }
    code = "from toolkit.cli import main as cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | words, capture_output=True, text=True
    )
    assert "finetune" in done.stdout


def test_results_go_to_standard_output_and_the_log_to_standard_error(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "cifake", cifake_files(4, 2))
    places = ("--data", str(data), "--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results"))
    done = run("embed", *places, "--model", "nano", "-v", NO_COLOR="1")
    assert done.returncode == 0 and "Embedded" in done.stdout and "toolkit." not in done.stdout
    assert "cat held out: 24 train, 12 base, 4 novel, 0 leaks dropped" in done.stderr
    assert "0 images in the cache, 40 to embed" in done.stderr and "loaded nano" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr and "Embedding" not in done.stderr, "no bars where no terminal is"
    quiet = run("-v", "compare", *places, "--model", "nano", "--heads", "knn", "--json")
    assert isinstance(json.loads(quiet.stdout), list) and "FAISS" in quiet.stderr
    assert run("compare", *places, "--model", "nano", "--heads", "knn").stderr == ""
    narrow = run("compare", *places, "--model", "nano", "--heads", "knn", FORCE_COLOR="1", COLUMNS="80").stdout
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", narrow).split("★ the most")[0]
    assert "recall" in table and "F1" not in table and max(map(len, table.splitlines()[1:])) <= 80
    assert re.search(r"base +knn +base +[\d.]+ \[.*\] ★ +\d\.\d{3}( +\d\.\d\d){4}", table)


def test_in_the_environment_an_option_that_can_be_repeated_takes_one_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PROMPT", "REAL=This is a real image.\nFAKE=Made by a machine.")
    monkeypatch.setenv("TOOLKIT_SPLIT", "Stable Diffusion")
    context = COMMANDS["embed"].make_context("embed", [], click.Context(cli.cli))
    assert context.params["prompts"] == ("REAL=This is a real image.", "FAKE=Made by a machine.")
    assert context.params["split"] == ("Stable Diffusion",)


@pytest.mark.parametrize(
    "words", [["--lr", "-1"], ["--lr", "nan"], ["--lr", "inf"], ["--temperature", "0"], ["--seed", "4294967296"]]
)
def test_a_number_that_makes_no_sense_is_refused_before_any_work(words: list[str]) -> None:
    result = CliRunner().invoke(cli.cli, ["finetune", *words])
    assert result.exit_code == 2 and words[0] in result.output and words[1] in result.output


def test_square_brackets_in_a_table_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("dogs [small]", title="[/x] held out")
    table.add_row("cats [red]:smile:")
    print_table(table)
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("dogs [small]", "[/x] held out", "cats [red]:smile:"))
