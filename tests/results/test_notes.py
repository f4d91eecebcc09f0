"""The sentences under the tables: what the images can tell, and choices at the edge of their grid."""

import json

import polars as pl

from toolkit.evaluation import columns
from toolkit.results.notes import notes

ROW = {"class": "all", "encoder": "base", "recipe": "", "perturbation": "", "test_data": "", "support": 200}


def table(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{**ROW, **row} for row in rows], schema=columns.schema(columns.RESULTS))


def test_power_is_said_of_each_test_set_from_the_rows_beside_the_best() -> None:
    told = [("base", None), ("base", 0.049), ("base", 0.1125), ("novel", 0.056)]
    (line,) = notes(table(*({"head": "knn", "test": test, "difference_told": least} for test, least in told)))
    assert line == (
        "200 base images tell differences from the best row of 0.049 to 0.113 or more; "
        "200 novel images of 0.056 or more (McNemar's test, 80 % power)."
    )


def test_each_head_at_an_edge_has_one_sentence_and_others_none() -> None:
    choices = [("logreg", "base", {"at_edge": ["C = 0.1"]}), ("logreg", "blocks", {"at_edge": ["C = 3000"]})]
    choices += [("knn", "base", {"at_edge": ["k = 101"]}), ("lda", "base", {"temperature": 2.0}), ("clap", "base", {})]
    made = table(*({"head": head, "encoder": on, "choice": json.dumps(one)} for head, on, one in choices))
    why = "chose at the edge of its grid, so that a wider one may do better"
    assert notes(made) == [f"logreg {why}: C = 0.1 on base; C = 3000 on blocks.", f"knn {why}: k = 101 on base."]


def test_rows_of_earlier_versions_have_no_sentence() -> None:
    assert notes(table({"head": "knn", "test": "base", "choice": json.dumps({"k": 101})})) == []
