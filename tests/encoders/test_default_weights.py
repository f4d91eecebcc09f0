"""Default weights exist in open_clip, whose list the table is compared with."""

from fnmatch import fnmatchcase

import open_clip
import pytest

from toolkit.encoders import openclip
from toolkit.encoders.default_weights import QUICK_GELU_TWINS, TAGS, default_tag
from toolkit.errors import EncoderError

PUBLISHED = sorted({model for model, _ in open_clip.list_pretrained()})


@pytest.mark.parametrize("model", PUBLISHED)
def test_every_model_that_has_weights_gets_some_that_it_has(model: str) -> None:
    assert default_tag(model) in open_clip.list_pretrained_tags_by_model(model)


@pytest.mark.parametrize("pattern", TAGS)
def test_every_line_of_the_table_is_of_use(pattern: str) -> None:
    firsts = [next((one for one in TAGS if fnmatchcase(model, one)), None) for model in PUBLISHED]
    assert pattern in firsts


@pytest.mark.parametrize("model", PUBLISHED)
def test_openais_weights_are_taken_where_there_are_any(model: str) -> None:
    has = "openai" in open_clip.list_pretrained_tags_by_model(model)
    assert (default_tag(model) == "openai") == has


def test_the_twins_with_quick_gelu_are_those_of_open_clip() -> None:
    models = open_clip.list_models()
    assert sorted(QUICK_GELU_TWINS) == sorted(one for one in models if f"{one}-quickgelu" in models)


def test_weights_that_are_not_openais_are_named_in_a_line() -> None:
    assert openclip.source("ViT-B-16-SigLIP2").pretrained == "webli"
    (line,) = openclip.source("ViT-B-16-SigLIP2").notes
    assert "webli" in line and "--pretrained" in line
    assert openclip.source("ViT-B-32").notes == openclip.source("ViT-B-16-SigLIP2", "webli").notes == ()


def test_a_model_without_published_weights_asks_for_a_file() -> None:
    with pytest.raises(EncoderError, match=r"no weights of ViT-S-32.*--pretrained FILE"):
        openclip.load(openclip.source("ViT-S-32"))
