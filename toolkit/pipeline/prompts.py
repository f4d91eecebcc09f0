"""The prompts of each label: given ones, templates with its name filled in, or a plain sentence."""

import csv
import json
import runpy
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from toolkit.data.labels import Labels, some
from toolkit.errors import SelectionError, did_you_mean
from toolkit.results.published import PROMPTS

CIFAR = tuple(
    f"a {kind}photo of {article} {size}{{}}."
    for article in ("a", "the")
    for kind, size in (
        *(("", ""), ("blurry ", ""), ("black and white ", ""), ("low contrast ", ""), ("high contrast ", "")),
        *(("bad ", ""), ("good ", ""), ("", "small "), ("", "big ")),
    )
)
"""OpenAI's templates for CIFAR-10 and CIFAR-100 (github.com/openai/CLIP, data/prompts.md)."""

OF_OPEN_CLIP = {"openai-imagenet": "OPENAI_IMAGENET_TEMPLATES", "openai-imagenet-simple": "SIMPLE_IMAGENET_TEMPLATES"}
"""OpenAI's templates for ImageNet, which open_clip ships: all 80, and the best subset of 7."""

PUBLISHED = (*OF_OPEN_CLIP, "openai-cifar")

Names = Mapping[str, str] | Path | str


def make_prompts(
    labels: Labels,
    given: Mapping[str, str | Sequence[str]],
    templates: Sequence[str] = (),
    names: Names | None = None,
) -> dict[str, list[str]]:
    """Each label's prompts: those `given`, else the `templates` with its name filled in, else the study's, else a plain
    sentence with its name.

    A template contains {}, or is the name of published templates (`PUBLISHED`). `names` maps labels to names, as a
    mapping or a file (`read_names`); by default a label is its own name. Raises SelectionError for a prompt of an
    unknown label, a template without {}, and labels that are missing in `names`.
    """
    for label in given:
        if label not in labels.names:
            guess = did_you_mean(label, labels.names)
            raise SelectionError(f"A prompt is for {label!r}, which is none of the labels {some(labels.names)}.{guess}")
    prompts = {label: [texts] if isinstance(texts, str) else list(texts) for label, texts in given.items()}
    rest = [label for label in labels.names if not prompts.get(label)]
    texts, called = templates_of(templates), _called(rest, names)
    for label in rest:
        usual = [PROMPTS[label]] if label in PROMPTS else [f"This is a {called[label]} image."]
        prompts[label] = [text.replace("{}", called[label]) for text in texts] or usual
    return {label: prompts[label] for label in labels.names}


def templates_of(wanted: Sequence[str]) -> list[str]:
    """The templates without repetitions, with names of published templates replaced by these."""
    found: list[str] = []
    for one in wanted:
        if "{}" not in one and one not in PUBLISHED:
            known = f"and is none of {', '.join(PUBLISHED)}.{did_you_mean(one, PUBLISHED)}"
            raise SelectionError(f"--template {one!r} holds no {{}} for the label, as 'a photo of a {{}}.', {known}")
        found += _published(one) if one in PUBLISHED else [one]
    return list(dict.fromkeys(found))


def _published(name: str) -> Sequence[str]:
    """Published templates. open_clip's file of templates is run alone, since importing open_clip takes seconds."""
    if name not in OF_OPEN_CLIP:
        return CIFAR
    package = find_spec("open_clip")
    assert package is not None and package.origin is not None, "the toolkit is installed with open_clip"
    written = runpy.run_path(str(Path(package.origin).with_name("zero_shot_metadata.py")))
    return [template("{}") for template in written[OF_OPEN_CLIP[name]]]


def _called(labels: Sequence[str], names: Names | None) -> Mapping[str, str]:
    if names is None:
        return dict(zip(labels, labels, strict=True))
    known, place = (names, "names") if isinstance(names, Mapping) else (read_names(Path(names)), str(names))
    without = [label for label in labels if not known.get(label, "").strip()]
    if without:
        which = f"{len(without)} of {len(labels)} labels: {some(without)}"
        raise SelectionError(f"{place} gives no name for {which}. Add them, or say --prompt LABEL=TEXT.")
    return known


def read_names(path: Path) -> dict[str, str]:
    """Label -> name, from a JSON object, a CSV, or a TSV (`.tsv`, `.txt`). A table has columns `label`
    and `name`, or no header and these two first.

    Raises SelectionError for a file that cannot be read as that.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return {str(label): str(name) for label, name in json.loads(text).items()}
        rows = list(csv.reader(text.splitlines(), delimiter="\t" if path.suffix.lower() in (".tsv", ".txt") else ","))
    except (OSError, ValueError, AttributeError, csv.Error) as error:
        raise SelectionError(f"--names {path} cannot be read as a table or a JSON object: {error}") from error
    has_header = bool(rows) and {"label", "name"} <= set(rows[0])
    label, name = (rows[0].index("label"), rows[0].index("name")) if has_header else (0, 1)
    return {row[label].strip(): row[name].strip() for row in rows[has_header:] if len(row) > max(label, name)}
