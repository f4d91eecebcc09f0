"""From what a user names (a path, a model, two labels) to a plan. Command line and library both come through here."""

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.data.manifest import Dataset
from toolkit.encoders import openclip
from toolkit.errors import SelectionError, did_you_mean
from toolkit.pipeline.workflow import Plan
from toolkit.results.summary import PROMPTS


def make_plan(
    dataset: Dataset,
    source: openclip.Source,
    labels: Sequence[str] | None = None,
    prompts: Mapping[str, str | Sequence[str]] | None = None,
    **fields: Any,
) -> Plan:
    """A plan for two labels of `dataset`: the data's own two where `labels` are not given.

    `prompts` maps labels to a prompt or several; those without one get the study's, or a plain sentence. `fields` are
    those of `Plan`. Raises SelectionError where the labels are not two of the data's, or a prompt is for another.
    """
    pair = _two(labels, dataset.labels())
    return Plan(dataset.with_labels(pair), source, _prompts(pair, prompts or {}), **fields)


def default_model(dataset: Dataset) -> str:
    """ViT-B-32, as in the study; for the built-in sample nano, which needs no download."""
    return "nano" if dataset.kind == "sample" else "ViT-B-32"


def _two(wanted: Sequence[str] | None, present: list[str]) -> list[str]:
    """The two labels to tell apart, the second one being what P is the probability of."""
    labels = [label.strip() for label in wanted] if wanted else present
    if len(present) < 2:
        raise SelectionError(
            f"Two labels are compared, and the data has {present[0]} alone: add images of another one."
        )
    if len(labels) != 2 or labels[0] == labels[1]:
        raise SelectionError(f"Two labels are compared: name them, --labels A,B. The data has {', '.join(present)}.")
    return labels


def _prompts(labels: list[str], given: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Each label's prompts: those given, else the study's, else the label's name in a plain sentence."""
    for label in given:
        if label not in labels:
            guess = did_you_mean(label, labels)
            raise SelectionError(f"A prompt is for {label!r}, which is none of the labels {', '.join(labels)}.{guess}")
    prompts = {label: [texts] if isinstance(texts, str) else list(texts) for label, texts in given.items()}
    return {label: prompts.get(label) or [PROMPTS.get(label, f"This is a {label} image.")] for label in labels}
