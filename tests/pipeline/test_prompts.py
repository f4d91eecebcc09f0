"""What labels are called to a text tower: prompts, templates, names."""

import json
from pathlib import Path

import pytest
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

from toolkit.data.labels import Labels
from toolkit.errors import SelectionError
from toolkit.pipeline.prompts import make_prompts, read_names, templates_of

LABELS = Labels.of(["n01", "n02", "n03"])
NAMES = {"n01": "tench", "n02": "goldfish", "n03": "great white shark, white shark"}


def test_a_prompt_wins_over_templates_which_win_over_the_plain_sentence() -> None:
    given = {"n02": "It swims."}
    assert make_prompts(LABELS, given) == {
        "n01": ["This is a n01 image."],
        "n02": ["It swims."],
        "n03": ["This is a n03 image."],
    }
    shark = NAMES["n03"]
    both = make_prompts(LABELS, given, ["a {}.", "the {} ({})."], NAMES)
    assert both == {
        "n01": ["a tench.", "the tench (tench)."],
        "n02": ["It swims."],
        "n03": [f"a {shark}.", f"the {shark} ({shark})."],
    }
    assert make_prompts(Labels.of(["FAKE", "REAL"]), {})["REAL"] == ["This is a real image."]


def test_published_templates_are_the_published_ones() -> None:
    assert templates_of(["openai-imagenet"]) == list(dict.fromkeys(one("{}") for one in OPENAI_IMAGENET_TEMPLATES))
    assert templates_of(["openai-imagenet-simple"]) == [one("{}") for one in SIMPLE_IMAGENET_TEMPLATES]
    cifar = templates_of(["openai-cifar"])
    assert len(cifar) == len(set(cifar)) == 18
    assert {"a photo of a {}.", "a low contrast photo of the {}.", "a photo of the big {}."} <= set(cifar)
    assert templates_of(["a photo of a {}.", "openai-cifar", "my {}"]) == [*cifar, "my {}"]


def test_a_template_without_a_place_for_the_label_is_an_error() -> None:
    for wrong in ("a photo", "a photo of a {0}", "openai-cifar10"):
        with pytest.raises(SelectionError, match="openai-cifar"):
            templates_of([wrong])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.json", json.dumps(NAMES)),
        ("names.csv", 'n01,tench\nn02,goldfish\nn03,"great white shark, white shark"\n'),
        ("names.tsv", "id\tname\tlabel\n0\ttench\tn01\n1\tgoldfish\tn02\n2\tgreat white shark, white shark\tn03\n"),
        ("words.txt", "n01\ttench\nn02\tgoldfish\n\nn03\tgreat white shark, white shark\nn04\tmore\n"),
    ],
)
def test_names_are_read_from_tables_and_json(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    found = read_names(tmp_path / file)
    assert {label: found[label] for label in NAMES} == NAMES


def test_labels_without_a_name_are_counted_and_named_unless_they_have_prompts(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("n01,tench\nn02,\n")
    with pytest.raises(SelectionError, match=r"names.csv gives no name for 2 of 3 labels: n02, n03\."):
        make_prompts(LABELS, {}, ["a {}."], tmp_path / "names.csv")
    assert make_prompts(LABELS, {"n02": "x", "n03": "y"}, ["a {}."], tmp_path / "names.csv")["n01"] == ["a tench."]
    for name, text in (("list.json", '["n01"]'), ("bad.json", "{"), ("gone.csv", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(SelectionError, match=name):
            read_names(tmp_path / name)
