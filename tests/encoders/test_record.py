"""An encoder's record is typed: missing and unknown fields are errors, and records of version 1 are read."""

import json

import pytest
from fakes import FakeEncoder

from toolkit.encoders.record import EncoderRecord, Sees, TrainedOn
from toolkit.errors import CacheError

TRAINED = TrainedOn("b" * 16, "abc", "study", {"epochs": 5}, 0, "cat", ("bird", "dog"), "0" * 64, 24, {"by": "folds"})
OLD = {
    "model": "nano",
    "pretrained": "shipped",
    "weights_sha256": "1" * 64,
    "file_sha256": "2" * 64,
    "precision": "fp32",
    "preprocessing": {"size": [32, 32]},
    "dimension": 256,
    "identity": "a" * 16,
}
OLD_TRAINING = {
    "base_identity": "b" * 16,
    "checkpoint": "abc",
    "recipe": "study",
    "settings": {"epochs": 5},
    "seed": 0,
    "held_out": "cat",
    "train_categories": ["bird", "dog"],
    "train_sha256": "0" * 64,
    "train_rows": 24,
}


def through_json(record: EncoderRecord) -> EncoderRecord:
    return EncoderRecord.of(json.loads(json.dumps(record.plain())))


def test_a_record_comes_back_from_json_as_it_was() -> None:
    for record in (
        FakeEncoder().record,
        EncoderRecord("f" * 16, "nano", "shipped", 256, trained_on=TRAINED),
        EncoderRecord("c" * 16, "nano", "shipped", 7, sees=Sees.BLOCKS, has_text=False, blocks=(3, 4)),
    ):
        assert through_json(record) == record


def test_missing_and_unknown_fields_are_named() -> None:
    plain = FakeEncoder().record.plain()
    del plain["dimension"]
    with pytest.raises(CacheError, match=r"Missing fields: dimension\. Unknown fields: colour\."):
        EncoderRecord.of({**plain, "colour": "red"})
    with pytest.raises(CacheError, match="version 99"):
        EncoderRecord.of({**FakeEncoder().record.plain(), "version": 99})
    half = {**EncoderRecord("f" * 16, "nano", "shipped", 256, trained_on=TRAINED).plain()}
    half["trained_on"] = {name: value for name, value in half["trained_on"].items() if name != "train_sha256"}
    with pytest.raises(CacheError, match="Missing fields: train_sha256"):
        EncoderRecord.of(half)


def test_records_of_version_1_are_read() -> None:
    base = EncoderRecord.of({"kind": "base", **OLD})
    assert (base.name, base.has_text, base.known_as, base.trained_on) == ("base", True, (f"nano {'2' * 64}",), None)
    tuned = EncoderRecord.of({"kind": "finetuned", **OLD, **OLD_TRAINING})
    assert tuned.name == "finetuned" and tuned.trained_on is not None
    assert tuned.trained_on.train_categories == ("bird", "dog") and tuned.trained_on.base_identity == "b" * 16
    few = {name: OLD[name] for name in ("model", "pretrained", "precision", "dimension", "identity")}
    facts = EncoderRecord.of({"kind": "file facts", **few})
    assert (facts.name, facts.sees, facts.has_text, facts.sees_perturbations) == ("file facts",) * 2 + (False, False)
    blocks = EncoderRecord.of({"kind": "blocks", **few, "weights_sha256": "1" * 64, "base_identity": "b" * 16})
    assert blocks.is_inside and not base.is_inside and not tuned.is_inside and not facts.is_inside
    assert (blocks.name, blocks.base_identity, blocks.trained_on) == ("blocks", "b" * 16, None)
