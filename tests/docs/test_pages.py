"""The documentation's commands: each one in the tutorial and the how-tos runs, in their order, on small data.

Commands below `<!-- not run: REASON -->` need something that is not here (a download, a GPU, torchrun). They are parsed
by the command line's own parser, as are those of all other pages: commands, options and values exist.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from places import ROOT
from trees import jpeg

from toolkit import heads
from toolkit.cli.main import cli
from toolkit.data.sources import sample
from toolkit.heads import stored

DOCS = ROOT / "docs"
RUN = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>.+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SMALL = {"MODEL": "nano", "EPOCHS": "1", "BATCH_SIZE": "16", "TRAIN_PER_LABEL": "16", "TEST_PER_LABEL": "6"}
SMALL["HEADS"] = "zero-shot,logreg"
"""What the environment sets, so that pages can be run as they stand."""
NO_COMMAND = re.compile(r"…|\$|\[OPTIONS\]")
"""A line with one of these shows the form of a command, or is part of a script."""
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


@dataclass(frozen=True)
class Line:
    text: str
    runs: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def blocks(page: Path, language: str) -> Iterator[re.Match[str]]:
    return (found for found in BLOCK.finditer(page.read_text()) if found["language"] == language)


def lines(page: Path) -> list[Line]:
    """The commands of a page's `sh` blocks; one that ends with a backslash goes on in the next line."""
    return [
        Line(text, found["why"] is None)
        for found in blocks(page, "sh")
        for text in found["text"].replace("\\\n", " ").splitlines()
        if text.strip() and not text.lstrip().startswith("#")
    ]


def arguments(words: list[str]) -> list[list[str]]:
    """What each `cli.py` of a line is given: up to the next pipe or redirection."""
    found, ends = [], {"|", "&&", ">", ";", "&"}
    for start in (number + 1 for number, word in enumerate(words) if word == "cli.py"):
        end = next((number for number in range(start, len(words)) if words[number] in ends), len(words))
        found.append(words[start:end])
    return found


def parse(words: list[str]) -> None:
    """Raises click.UsageError where there is no such command, option or value; runs nothing."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            raise click.UsageError(f"There is no command {words[0]!r}.")
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all pages, with a built-in sample of a tenth: what one page has embedded, the others find."""
    sample.make.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "COUNTS", {"train": 9, "test": 11})
        yield tmp_path_factory.mktemp("cache")
    sample.make.cache_clear()


@pytest.fixture
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands: the program, two folders of pictures, faces of two generators, new pictures, a list."""
    (tmp_path / "cli.py").symlink_to(ROOT / "cli.py")
    for place, label in (("photos/cats", "REAL"), ("photos/dogs", "FAKE")):
        write(tmp_path / place, label, 110)
    for number, generator in enumerate(("dalle", "stylegan")):
        for label, what in (("0_real", "REAL"), ("1_fake", "FAKE")):
            for split, count in (("train", 12), ("test", 5)):
                start = 1000 * number + (500 if split == "test" else 0)
                write(tmp_path / "faces" / split / generator / label, what, count, start)
                write(tmp_path / "more-faces" / split / generator / label, what, count, start + 5000)
    write(tmp_path / "new", "REAL", 3, 9000)
    write(tmp_path / "new/below", "FAKE", 3, 9000)
    table = [f"photos/{name}/{number}.jpg,{name}" for name in ("cats", "dogs") for number in range(20)]
    (tmp_path / "list.csv").write_text("\n".join(["file,kind", *table]))
    for name, value in {**SMALL, "CACHE": str(cache)}.items():
        monkeypatch.setenv(f"TOOLKIT_{name}", value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, label: str, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(jpeg(start + number, label, 16))


def run(line: Line) -> tuple[int, str]:
    """Exit code and output: in this process, or in a shell where the line is more than that."""
    words = line.words
    if words[:2] == ["python", "cli.py"] and "|" not in words:
        result = CliRunner().invoke(cli, arguments(words)[0])
        if ">" in words:
            Path(words[words.index(">") + 1]).write_text(result.stdout)
        return result.exit_code, f"{result.output}{result.exception or ''}"
    done = subprocess.run(["bash", "-c", line.text], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def the_head_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The how-to's own file and line, put where it says."""
    file, line = (found["text"] for found in blocks(DOCS / "how-to/write-a-head.md", "python"))
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads/nearest_mean.py").write_text(file)
    monkeypatch.setattr(heads, "__path__", [*heads.__path__, str(tmp_path / "heads")])
    name, place = re.findall(r'"(.+?)"', line)
    monkeypatch.setitem(heads.HEADS, name, place)
    stored.trusted.cache_clear()


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
@pytest.mark.usefixtures("the_head_of_the_page")
def test_the_commands_of_a_page_run(page: Path, home: Path) -> None:
    for line in lines(page):
        if line.runs:
            code, output = run(line)
            assert code == 0, f"{line.text}\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_have_commands_options_and_values_that_exist(page: Path) -> None:
    for line in lines(page):
        for words in arguments(line.words) if not NO_COMMAND.search(line.text) else []:
            try:
                parse(words)
            except click.UsageError as error:
                pytest.fail(f"{line.text}\n{error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for place, heading in LINK.findall(page.read_text()):
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), place
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            slugs = [re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower())) for title in titles]
            assert heading in slugs, f"{place}#{heading}"
