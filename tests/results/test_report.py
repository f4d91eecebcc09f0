"""The page: what it says follows from the figures, it suffices on its own, and nothing in the data can break out."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from folders import LABELS, RIGHT, Images, cache_vectors, predict, priced, store, study
from scipy.stats import binomtest, norm, ttest_1samp

from toolkit.cli import main as cli
from toolkit.errors import ResultsError, SelectionError
from toolkit.evaluation.intervals import wilson
from toolkit.evaluation.metrics import mcnemar
from toolkit.results import run_records, tables
from toolkit.results.entrants import subject
from toolkit.results.report import again, page, pictures, verdict, words


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything noted and cached, and its page."""
    home = tmp_path_factory.mktemp("made")
    for identity in ("e0", "f-cat-0"):
        cache_vectors(home / "cache", identity, images)
    facts = {"command": "python cli.py run --data x", "asked": "--data x", "data": str(images.root)}
    folder = store(home / "results", study(images), **facts, cache=str(home / "cache"), prompts={"REAL": ["A photo."]})
    page.write(folder)
    return folder


def reached(predictions: list[pl.DataFrame], folder: Path) -> verdict.Verdict:
    found = verdict.reach(subject(*tables.read(store(folder, predictions))))
    assert found is not None
    return found


class Structure(HTMLParser):
    """Every tag opened with its attributes, and the text of the page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


PROBED = {("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.8, 0.9)}


@pytest.mark.parametrize(
    ("shares", "way"),
    [
        (RIGHT, "finetune"),
        (PROBED | {("finetuned", "logreg"): (0.8, 0.85)}, "probe"),
        (PROBED | {("finetuned", "logreg"): (1.0, 0.2)}, "probe"),
        ({("base", "zero-shot"): (0.9, 0.9), ("base", "logreg"): (0.5, 0.5)}, "prompt"),
        ({("base", "zero-shot"): (0.9, 0.9), ("base", "logreg"): (0.9, 0.9)}, ""),
        ({("base", "zero-shot"): (0.5, 0.9), ("base", "logreg"): (1.0, 0.9)}, "probe"),
    ],
)
def test_the_dearer_way_wins_only_where_it_is_better_by_more_than_chance_novel_before_base(
    images: Images, tmp_path: Path, shares: dict[tuple[str, str], tuple[float, float]], way: str
) -> None:
    assert reached(study(images, shares), tmp_path).way == way


def test_a_way_that_may_be_guessing_is_never_the_answer(images: Images, tmp_path: Path) -> None:
    """The probe is far better than the prompts, and still no better than always giving the same answer."""
    shares = {("base", "zero-shot"): (0.5, 0.1), ("base", "logreg"): (0.9, 0.6)}
    found = reached(study(images, shares), tmp_path)
    assert found.contests[0].won and found.way == ""
    low, high = wilson(24, 40)
    assert low < 0.5
    assert found.sentence == (
        "40 novel test images do not show that any way beats always giving the same answer (50.0 %): the probe reads "
        f"60.0 % ({100 * low:.1f} to {100 * high:.1f}), the prompts 10.0 %. Take more pictures. Fine-tuning has not "
        "been tried yet."
    )


def test_few_images_leave_it_undecided_and_no_way_has_the_badge(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", each=6)
    shares = {("base", "zero-shot"): (0.5, 0), ("base", "logreg"): (0.75, 0), ("finetuned", "logreg"): (0.7, 0)}
    made = priced(store(tmp_path / "results", study(images, shares, held_out="none")), {("base", "logreg"): 2.0})
    written = page.write(made)
    low, high = wilson(18, 24)
    assert written.headline == "Undecided." and written.lead == (
        f"24 test images cannot tell the ways apart: the probe reads 75.0 % ({100 * low:.1f} to {100 * high:.1f}), "
        "fine-tuning 70.8 %, the prompts 50.0 %. Take more pictures."
    )
    assert "the answer</span>" not in written.page.read_text()


def test_a_way_that_beats_the_prompts_alone_is_not_the_answer_while_a_cheaper_one_may_be_as_good(
    tmp_path: Path,
) -> None:
    images = Images(tmp_path / "data", each=10)
    shares = {("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.8, 0.8), ("finetuned", "logreg"): (0.9, 0.95)}
    found = reached(study(images, shares), tmp_path / "results")
    first, last = found.contests
    assert not first.won and last.won and last.holder.way == "prompt"
    assert found.way == "" and "cannot tell fine-tuning from the probe" in found.sentence


def test_the_cheaper_way_is_the_answer_where_it_is_as_good_within_the_margin(images: Images, tmp_path: Path) -> None:
    same = [
        predict(images, 0.9, test=test, head=head) for head in ("zero-shot", "logreg") for test in ("base", "novel")
    ]
    folder = store(tmp_path, same)
    assert page.write(folder, margin=0.1).headline == "Prompt."
    assert page.write(folder, margin=0.01).headline == "Undecided."


def test_a_duel_is_mcnemars_test_on_the_same_images(images: Images, tmp_path: Path) -> None:
    pair = [predict(images, 0.8, 1, head="zero-shot"), predict(images, 0.6, 2, head="logreg")]
    shown = subject(*tables.read(store(tmp_path, pair)))
    first, second = (next(one for one in shown.entrants if one.head == head) for head in ("zero-shot", "logreg"))
    found = verdict.duel(shown.predictions, first.key, second.key, "base")
    right = [(one["label"] == one["predicted"]).to_numpy() for one in pair]
    assert found.p == mcnemar(right[0], right[1])
    gain = right[0].astype(float) - right[1]
    assert found.difference == pytest.approx(gain.mean())
    gain = np.append(gain, [1, -1])  # Bonett & Price
    assert found.high - gain.mean() == pytest.approx(1.96 * gain.std() / np.sqrt(len(gain)), rel=1e-3)


def test_repetitions_do_not_make_the_same_images_count_twice(images: Images, tmp_path: Path) -> None:
    """The same predictions under five seeds: the difference stays, and so does all that is said about chance."""
    shares = {key: RIGHT[key] for key in [("base", "logreg"), ("finetuned", "logreg")]}
    once = reached(study(images, shares), tmp_path / "once").contests[0].duels
    often = [one for seed in range(1, 6) for one in study(images, shares, seed=seed)]
    five = reached(often, tmp_path / "five").contests[0].duels
    assert five.keys() == once.keys()
    for test, one in once.items():
        assert (five[test].images, five[test].p) == (one.images, one.p)
        assert (five[test].low, five[test].high) == pytest.approx((one.low, one.high))


def test_the_sentence_gives_the_gain_in_points(images: Images, tmp_path: Path) -> None:
    found = reached(study(images), tmp_path)
    novel = found.contests[-1].duels["novel"]
    assert novel.difference == pytest.approx(0.9 - 0.6)
    interval = f"({100 * novel.low:.1f} to {100 * novel.high:.1f})"
    assert f"gains 30.0 points {interval} on the category that training never saw" in found.sentence


@pytest.mark.parametrize(
    ("prompts", "probe", "verbs"),
    [
        ((0.5, 0.9), (1.0, 0.2), ["loses", "gains"]),
        ((0.5, 0.5), (0.9, 0.9), ["gains"]),
        ((0.9, 0.9), (0.5, 0.5), ["loses"]),
    ],
)
def test_a_loss_and_a_gain_each_have_their_verb_and_two_of_a_kind_share_one(
    images: Images, tmp_path: Path, prompts: tuple[float, float], probe: tuple[float, float], verbs: list[str]
) -> None:
    found = reached(study(images, {("base", "zero-shot"): prompts, ("base", "logreg"): probe}), tmp_path)
    assert all(one.sure for one in found.contests[0].duels.values())
    assert re.findall("gains|loses", found.sentence) == verbs


def of_runs(*runs: tuple[str, int, np.ndarray]) -> pl.DataFrame:
    """Predictions of entrants `a` and `b` on novel images: of each run the held-out value, the seed, and of each image
    whether `a` alone was right (1), `b` alone (-1), or both (0)."""
    rows = [
        {"test": "novel", "held_out": held_out, "seed": seed, "entrant": entrant, "label": "REAL"}
        | {"path": f"{held_out}/{n}", "sha256": f"{held_out}{n}", "predicted": "FAKE" if one == lost else "REAL"}
        for held_out, seed, gains in runs
        for entrant, lost in (("a", -1), ("b", 1))
        for n, one in enumerate(gains)
    ]
    return pl.DataFrame(rows)


def test_every_run_has_the_same_weight_in_a_duel_however_many_images_it_has() -> None:
    few, many = np.repeat([1, 0], [10, 10]), np.repeat([1, -1, 0], [20, 10, 170])
    found = verdict.duel(of_runs(("cat", 0, few), ("owl", 0, many)), "a", "b", "novel")
    assert found.difference == pytest.approx((few.mean() + many.mean()) / 2)
    assert (found.images, found.values) == (220, 0) and found.low < found.difference < found.high


def test_over_several_runs_how_often_an_image_is_gained_counts_for_p_too() -> None:
    """30 images are gained in one of three seeds, 12 are lost in all three: more images, and less accuracy."""
    lost, gained = np.repeat([-1, 0], [12, 188]), np.repeat([0, 1, 0], [12, 30, 158])
    found = verdict.duel(of_runs(("cat", 1, lost + gained), ("cat", 2, lost), ("cat", 3, lost)), "a", "b", "novel")
    assert binomtest(12, 42).pvalue < 0.05
    assert found.difference < 0 and found.low < 0 < found.high and not found.sure


@pytest.mark.parametrize("draw", range(8))
def test_over_several_runs_p_is_never_below_that_of_the_interval(draw: int) -> None:
    rng = np.random.default_rng(draw)
    runs = [("cat", seed, rng.choice([1, -1, 0], 80, p=[0.25, 0.1, 0.65])) for seed in (1, 2, 3)]
    found = verdict.duel(of_runs(*runs), "a", "b", "novel")
    middle, half = (found.high + found.low) / 2, (found.high - found.low) / 2
    assert found.p >= 2 * norm.sf(norm.ppf(0.975) * abs(middle) / half) - 1e-9


def test_a_contest_with_the_best_of_many_rows_has_the_p_that_is_corrected_for_picking_it(
    images: Images, tmp_path: Path
) -> None:
    rivals = {("base", head): (0.6, 0.6) for head in ("knn", "lda", "svm", "mlp", "ridge")}
    shares = {("base", "zero-shot"): (0.6, 0.45), ("base", "logreg"): (0.8, 0.75), **rivals}
    found = reached(study(images, shares), tmp_path)
    shown = subject(*tables.read(tmp_path))
    (contest,) = found.contests
    for test, one in contest.duels.items():
        rows = shown.table.filter((pl.col("class") == "all") & (pl.col("test") == test))
        (corrected,) = rows.filter(pl.col("head") == "zero-shot")["p_best_corrected"]
        plain = verdict.duel(shown.predictions, contest.challenger.key, contest.holder.key, test).p
        assert one.p == corrected > plain


def test_the_page_stands_alone_and_holds_every_part(made: Path) -> None:
    html = (made / "report.html").read_text()
    seen = Structure(html)
    assert html.startswith("<!doctype html>")
    for title in ("How sure is that?", "Every encoder and head", "Base against novel", "Head by head", "Run it again"):
        assert title in seen.text
    assert "Fine-tune." in seen.text and "90.0 %" in seen.text
    for tag, attributes in seen.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), f"<{tag} {name}={value[:60]}>"
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert len(html) < 2_000_000


def test_the_summary_shows_each_entrant_with_base_and_novel_and_the_drop(made: Path) -> None:
    rows = re.findall(r"<tr>\s*<td data-value=\"([^\"]+)\">(.*?)</tr>", (made / "report.html").read_text(), re.DOTALL)
    assert [name for name, _ in rows] == [
        "base CLIP · zero-shot",
        "base CLIP · logreg",
        "fine-tuned CLIP · zero-shot",
        "fine-tuned CLIP · logreg",
    ]
    for (_, cells), (base, novel) in zip(rows, RIGHT.values(), strict=True):
        values = [float(one) for one in re.findall(r'data-value="([-\d.e]+)"', cells)]
        assert values[:3] == pytest.approx([base, novel, base - novel], abs=0.013)


def test_confusions_count_the_images_of_each_label(made: Path) -> None:
    html = (made / "report.html").read_text()
    counts = [int(one) for one in re.findall(r'<td class="n(?: right)?" style="--share[^"]*">(\d+)</td>', html)]
    assert len(counts) == 4 * 2 * 4 and sum(counts) == 4 * 80
    predictions = tables.read(made)[1]
    first = predictions.filter(
        (pl.col("head") == "zero-shot") & (pl.col("encoder") == "base") & (pl.col("test") == "base")
    )
    by_hand = [
        len(first.filter((pl.col("label") == true) & (pl.col("predicted") == called)))
        for true in LABELS
        for called in LABELS
    ]
    assert counts[:4] == by_hand


def test_pictures_are_files_and_the_same_bytes_each_time(made: Path) -> None:
    def digest() -> dict[str, str]:
        files = [*(made / "pictures").iterdir(), made / "report.html"]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digest()
    assert {"base-against-novel.svg", "base-against-novel.png", "map-1.svg", "map-2.svg", "head-4.png"} <= set(before)
    page.write(made)
    assert digest() == before


def test_pictures_of_an_earlier_page_go_and_other_files_stay(images: Images, tmp_path: Path) -> None:
    page.write(store(tmp_path, study(images)))
    (tmp_path / "pictures/head-9.svg").write_text("old")
    (tmp_path / "pictures/mine.svg").write_text("mine")
    written = page.write(tmp_path)
    there = {path for path in (tmp_path / "pictures").iterdir()}
    assert there == {*written.pictures, tmp_path / "pictures/mine.svg"}


def test_the_map_shows_every_image_before_and_after_from_the_cache_alone(made: Path, tmp_path: Path) -> None:
    html = (made / "report.html").read_text()
    assert "before fine-tuning" in html and "after fine-tuning (study)" in html
    page.write(made, cache=tmp_path)
    assert "The embeddings are not in" in (made / "report.html").read_text()
    page.write(made)


def test_thumbnails_are_the_images_of_which_the_best_head_was_surest(made: Path) -> None:
    html = (made / "report.html").read_text()
    shown = re.findall(r'<figure class="thumb" title="([^"]+)">\s*<img src="data:image/png;base64', html)
    predictions = tables.read(made)[1]
    best = predictions.filter(
        (pl.col("encoder") == "finetuned") & (pl.col("head") == "logreg") & (pl.col("test") == "novel")
    )
    mistakes = best.filter(pl.col("label") != pl.col("predicted"))
    assert set(mistakes["path"]) <= set(shown)
    hits = best.filter((pl.col("label") == "REAL") & (pl.col("predicted") == "REAL")).sort("p_real", descending=True)
    assert hits["path"][0] in shown and html.index(hits["path"][0]) < html.index(hits["path"][1])


def test_images_that_are_gone_or_changed_are_said_to_be(made: Path, tmp_path: Path) -> None:
    page.write(made, data=str(tmp_path / "nowhere"))
    assert "The images cannot be shown: No data at" in (made / "report.html").read_text()
    Images(tmp_path / "others", labels=("REAL", "FAKE"))
    page.write(made, data=str(tmp_path / "others"))
    assert "no longer those that were scored" in (made / "report.html").read_text()
    page.write(made)


NASTY = '<script>alert("1")</script>&\'"$x_1$'


def test_whatever_comes_from_data_is_text_and_never_html(tmp_path: Path) -> None:
    labels = ("<img src=x onerror=alert(1)>", '"><script>alert(2)</script>')
    labels = tuple(label.replace("/", "∕") for label in labels)
    nasty = NASTY.replace("/", "∕")
    images = Images(tmp_path / "data", categories=("_dog", nasty), labels=labels)
    about = {"dataset": NASTY, "held_out": nasty, "model": NASTY, "pretrained": "{{ 7 * 7 }}"}
    predictions = study(images, **about, chosen_by="</style><b>")
    cache_vectors(tmp_path / "cache", "e0", images)
    facts = {
        "command": f"python cli.py run {NASTY}",
        "asked": "",
        "data": str(images.root),
        "prompts": {NASTY: [NASTY]},
    }
    folder = store(tmp_path / "results", predictions, labels, **facts, cache=str(tmp_path / "cache"))
    page.write(folder)
    html = (folder / "report.html").read_text()
    seen = Structure(html)
    tags = [tag for tag, _ in seen.tags]
    assert tags.count("script") == 1 and tags.count("style") == 1
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert all((a.get("src") or "data:").startswith("data:") for _, a in seen.tags)
    assert NASTY in seen.text and "{{ 7 * 7 }}" in seen.text and "49" not in re.sub(r"[\d.]{3,}", "", seen.text)
    for path in (folder / "pictures").glob("*.svg"):
        assert not re.search(r"<(script|img)", path.read_text())


def test_no_script_but_ours_may_run_and_nothing_may_be_fetched(made: Path) -> None:
    html = (made / "report.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    script = re.search(r"<script>(.*)</script>", html, re.DOTALL)
    assert policy and script and "default-src 'none'" in policy[1]
    digest = hashlib.sha256(script[1].encode()).digest()
    assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy[1]


def test_text_reads_on_its_background_in_light_and_dark() -> None:
    """WCAG 2, contrast of at least 4.5 for text and 3 for marks."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(one), luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    css = (Path(page.__file__).parent / "templates/report.css").read_text()
    papers = re.findall(r"--paper: (#\w+); --panel: (#\w+); --bad: (#\w+)", css)
    assert len(papers) == 2
    for shade, (paper, panel, bad) in enumerate(papers):
        for ground in (paper, panel):
            assert contrast(bad, ground) >= 4.5
            for name in ("ink", "muted"):
                assert contrast(pictures.COLOURS[name][shade], ground) >= 4.5
            for name in ("prompt", "probe", "finetune", "reference", "first", "second"):
                assert contrast(pictures.COLOURS[name][shade], ground) >= 3


def test_without_categories_the_page_speaks_of_test_images_alone(images: Images, tmp_path: Path) -> None:
    folder = store(tmp_path, study(images, held_out="none"))
    written = page.write(folder)
    text = Structure((folder / "report.html").read_text()).text
    assert "on the test images" in written.lead and "never saw" not in text
    assert "Base against novel" not in text and not (folder / "pictures/base-against-novel.svg").exists()


def test_heads_without_clip_are_shown_and_are_never_the_answer(images: Images, tmp_path: Path) -> None:
    cnn = [predict(images, 1.0, test=test, encoder="pixels", head="cnn", encoder_id="x") for test in ("base", "novel")]
    assert reached([*study(images), *cnn], tmp_path / "both").way == "finetune"
    written = page.write(store(tmp_path / "alone", cnn))
    assert written.headline == "Nothing to choose between." and "pixels" in written.page.read_text()


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.9, True)])
def test_the_page_warns_where_files_give_the_labels_away(
    images: Images, tmp_path: Path, share: float, warned: bool
) -> None:
    facts = predict(images, share, encoder="file facts", head="shortcut", encoder_id="x")
    html = page.write(store(tmp_path, [*study(images), facts])).page.read_text()
    assert ("Beware: facts of the files alone" in html) is warned and "does without CLIP: a head that sees" in html


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_very_few_images_all_right_or_all_wrong_still_make_a_page(tmp_path: Path, share: float) -> None:
    images = Images(tmp_path / "data", each=1)
    every = study(images, {key: (share, share) for key in RIGHT})
    for identity in ("e0", "f-cat-0"):
        cache_vectors(tmp_path / "cache", identity, images)
    folder = store(tmp_path / "results", every, data=str(images.root), cache=str(tmp_path / "cache"))
    assert page.write(folder).headline == "Undecided."
    assert (folder / "pictures/map-2.svg").exists()


def test_several_held_out_values_get_a_heat_map_and_the_hardest_ones_details(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", categories=("cat", "dog", "owl"))
    easy, hard = RIGHT, {key: (base, novel - 0.2) for key, (base, novel) in RIGHT.items()}
    every = [*study(images, easy, held_out="cat"), *study(images, hard, held_out="owl")]
    folder = store(tmp_path / "results", every)
    page.write(folder)
    html = (folder / "report.html").read_text()
    assert (folder / "pictures/leave-one-out.png").exists() and "Each category held out, one at a time" in html
    assert "are of one run, with the category owl held out" in html
    page.write(folder, held_out="cat")
    assert "with the category cat held out" in (folder / "report.html").read_text()
    with pytest.raises(SelectionError, match="cat, owl"):
        page.write(folder, held_out="unicorn")


def test_a_mean_over_runs_comes_with_its_worst_and_best(tmp_path: Path) -> None:
    images = Images(tmp_path / "data")
    shares = [RIGHT | {("base", "logreg"): (0.8, novel)} for novel in (0.5, 0.6, 0.7)]
    every = [one for seed, right in enumerate(shares, start=1) for one in study(images, right, seed=seed)]
    shown = subject(*tables.read(store(tmp_path / "results", every)))
    probe = next(one for one in shown.entrants if one.way == "probe").scores["novel"]
    assert (probe.mean, probe.low, probe.high, probe.runs) == (pytest.approx(0.6), 0.5, 0.7, 3)


def test_perturbed_and_other_images_get_their_own_parts_and_never_mix(images: Images, tmp_path: Path) -> None:
    changed = [
        predict(images, share, test="base", perturbation=f"jpeg:{quality}", head="logreg")
        for quality, share in ((50, 0.6), (90, 0.75))
    ]
    other = [predict(images, 0.7, test="other", test_data="elsewhere", head="logreg")]
    plain = store(tmp_path / "plain", study(images))
    folder = store(tmp_path / "results", [*study(images), *changed, *other])
    page.write(folder), page.write(plain)
    html = (folder / "report.html").read_text()
    assert "On perturbed images" in html and (folder / "pictures/robustness-jpeg-base.svg").exists()
    drawn = (folder / "pictures/robustness-jpeg-base.svg").read_text()
    assert drawn.index(">90<") < drawn.index(">50<"), "the mildest first"
    assert "elsewhere" in html and "On other data" in html

    def table(path: Path) -> str:
        return re.search(r'id="summary">(.*?)</table>', (path / "report.html").read_text(), re.DOTALL)[1]  # type: ignore[index]

    assert table(folder) == table(plain)


def test_the_newest_study_is_shown_and_the_others_are_named(images: Images, tmp_path: Path) -> None:
    store(tmp_path, study(images, train_per_label=10))
    table, predictions = tables.read(tmp_path)
    newer = study(images, train_per_label=None)
    store(tmp_path, newer)
    table, predictions = tables.read(tmp_path)
    later = pl.when(pl.col("train_per_label").is_null()).then(pl.lit("2026-02-02 00:00:00")).otherwise("created")
    tables.store(tmp_path, table.with_columns(created=later), predictions)
    page.write(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "of each label all to train" in html and "python cli.py report --study 2" in html
    page.write(tmp_path, number=2)
    assert "of each label at most 10 to train" in (tmp_path / "report.html").read_text()
    with pytest.raises(SelectionError, match="1 .the newest. to 2"):
        page.write(tmp_path, number=3)


def test_the_page_says_how_to_run_it_again(made: Path) -> None:
    text = Structure((made / "report.html").read_text()).text
    for word in ("python cli.py run --data x", "REAL: A photo.", "torch ", "f-cat-0", "2026-01-01"):
        assert word in text


def test_the_hint_to_fine_tune_has_the_options_of_the_data(images: Images, tmp_path: Path) -> None:
    frozen = {key: shares for key, shares in RIGHT.items() if key[0] == "base"}
    folder = store(tmp_path, study(images, frozen), asked="--data 'my pictures' --model nano")
    html = page.write(folder).page.read_text()
    (hint,) = re.findall(r"Not tried yet\. <code>(.*?)</code>", html)
    assert unescape(hint) == "python cli.py finetune --data 'my pictures' --model nano"


def test_the_commands_before_compare_follow_from_the_recipes() -> None:
    recipes = ["", "study", "robust epochs=2 batch_size=8 chosen"]
    table = pl.DataFrame({"encoder": ["base", "finetuned", "finetuned"], "recipe": recipes})
    noted = {"command": "python cli.py compare --data d --heads knn", "asked": "--data d"}
    assert again.commands(table, noted)[1:] == [
        "python cli.py embed --data d",
        "python cli.py finetune --data d",
        "python cli.py finetune --data d --recipe robust --epochs 2 --batch-size 8 --choose",
        "python cli.py compare --data d --heads knn",
    ]


def test_the_commands_embed_the_blocks_that_the_table_has() -> None:
    rows = [("base", ""), ("blocks", ""), ("patches", ""), ("finetuned", "study"), ("finetuned blocks", "study")]
    table = pl.DataFrame(rows, schema=["encoder", "recipe"], orient="row")
    assert again.commands(table, {"command": "python cli.py compare", "asked": "--data d"})[1:] == [
        "python cli.py embed --data d --features blocks",
        "python cli.py embed --data d --features patches",
        "python cli.py finetune --data d --features blocks",
        "python cli.py compare",
    ]


def test_notes_replace_their_own_and_a_damaged_record_begins_anew(images: Images, tmp_path: Path) -> None:
    store(tmp_path, study(images), command="first")
    store(tmp_path, study(images, train_per_label=9), command="second")
    store(tmp_path, study(images), command="third")
    assert [one["command"] for one in run_records.read(tmp_path).values()] == ["third", "second"]
    (tmp_path / run_records.RUNS).write_bytes(b"{")
    assert run_records.read(tmp_path) == {}
    page.write(tmp_path)
    assert "No command was recorded" in (tmp_path / "report.html").read_text()
    store(tmp_path, study(images), command="fourth")
    assert [one["command"] for one in run_records.read(tmp_path).values()] == ["fourth"]


def test_the_command_prints_the_verdict_and_json_lists_the_files(made: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(cli.cli, ["report", "--results", str(made)])
    assert said.exit_code == 0 and said.stdout.startswith("Fine-tune. ") and "report.html" in said.stdout
    facts = json.loads(CliRunner().invoke(cli.cli, ["report", "--results", str(made), "--json"]).stdout)
    assert facts["verdict"] == "Fine-tune." and all(Path(one).exists() for one in [facts["page"], *facts["pictures"]])
    nothing = CliRunner().invoke(cli.cli, ["report", "--results", str(tmp_path)])
    assert nothing.exit_code == 2 and "python cli.py compare" in nothing.stderr
    with pytest.raises(ResultsError):
        page.write(tmp_path)


KINDS = ("ant", "bee", "cat", "dog", "eel", "fox")


def test_from_six_held_out_values_on_the_unit_on_novel_images_is_the_value(tmp_path: Path) -> None:
    """Four kinds gain a lot and two lose: sure of these images, and not of another kind."""
    images, novel = (
        Images(tmp_path / "data", KINDS, each=10),
        dict(zip(KINDS, (0.9, 0.9, 0.9, 0.9, 0.3, 0.3), strict=True)),
    )
    shares = {kind: {("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.5, novel[kind])} for kind in KINDS}
    folder = store(tmp_path / "results", [one for kind in KINDS for one in study(images, shares[kind], held_out=kind)])
    shown = subject(*tables.read(folder))
    first, second = (next(one.key for one in shown.entrants if one.head == head) for head in ("logreg", "zero-shot"))
    found = verdict.duel(shown.predictions, first, second, "novel")
    gains = np.array([share - 0.5 for share in novel.values()])
    low, high = ttest_1samp(gains, 0).confidence_interval()
    signs = np.array(list(product((-1, 1), repeat=6))) @ gains
    assert (found.values, found.images) == (6, 120)
    assert (found.difference, found.low, found.high) == pytest.approx((gains.mean(), low, high))
    assert found.p == pytest.approx((np.abs(signs) >= gains.sum() - 1e-9).mean()) and not found.sure
    assert verdict.duel(shown.predictions, first, second, "base").values == 0
    page.write(folder)
    assert "the sign-flip test over 6 categories" in Structure((folder / "report.html").read_text()).text


def test_what_was_tried_in_a_part_of_the_runs_is_marked_and_no_rival(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", ("cat", "dog", "owl"))
    every = [one for kind in ("cat", "dog", "owl") for one in study(images, PROBED, held_out=kind)]
    tuned = study(images, {("finetuned", "logreg"): (1.0, 1.0)}, held_out="cat")
    found = reached([*every, *tuned], tmp_path / "results")
    assert set(found.best) == {"prompt", "probe"} and found.leader.head == "logreg"
    assert "Fine-tuning was not tried with every category and seed of the others" in found.sentence
    shown = subject(*tables.read(tmp_path / "results"))
    (marked,) = (one for one in shown.entrants if one.way == "finetune")
    assert marked.head == "logreg (1 of 3 runs)" and marked.scores["novel"].standing == ""
    text = Structure(page.write(tmp_path / "results").page.read_text()).text
    assert "Not tried with every category and seed of the others." in text and "cannot know new labels" not in text


def test_fine_tuning_with_seed_0_alone_beside_drawn_seeds_is_not_said_to_be_untried(
    images: Images, tmp_path: Path
) -> None:
    drawn = [one for seed in (1, 2) for one in study(images, PROBED, seed=seed)]
    found = reached([*drawn, *study(images, {("finetuned", "logreg"): (1.0, 1.0)}, seed=0)], tmp_path)
    assert "Fine-tuning was not tried with every category and seed" in found.sentence
    assert "tried yet" in reached(drawn, tmp_path / "alone").sentence


def test_a_mean_of_runs_is_no_guess_because_one_run_is(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", KINDS[:3])
    shares = [{("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.9, novel)} for novel in (0.45, 0.95, 0.95)]
    every = [one for kind, share in zip(KINDS, shares, strict=False) for one in study(images, share, held_out=kind)]
    assert page.write(store(tmp_path / "results", every)).warning == ""


def test_an_entrants_interval_is_students_over_six_values_on_novel_and_wilsons_on_base(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", KINDS, each=10)
    novel = dict(zip(KINDS, (0.9, 0.8, 0.9, 0.7, 0.5, 0.6), strict=True))
    every = [one for kind in KINDS for one in study(images, {("base", "logreg"): (0.8, novel[kind])}, held_out=kind)]
    shown = subject(*tables.read(store(tmp_path / "results", every)))
    (probe,) = shown.entrants
    students = ttest_1samp(list(novel.values()), 0).confidence_interval()
    assert shown.interval(probe, "novel") == pytest.approx((students.low, students.high))
    wilsons = binomtest(96, 120).proportion_ci(method="wilson")
    assert shown.interval(probe, "base") == pytest.approx((wilsons.low, wilsons.high))
    few = [one for one in every if one["held_out"][0] != "fox"]
    shown = subject(*tables.read(store(tmp_path / "few", few)))
    wilsons = binomtest(76, 100).proportion_ci(method="wilson")
    assert shown.interval(shown.entrants[0], "novel") == pytest.approx((wilsons.low, wilsons.high))


def test_of_a_single_run_among_several_the_worst_and_the_best_are_the_mean(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", KINDS[:3])
    every = [one for kind in KINDS[:3] for one in study(images, PROBED, held_out=kind)]
    alone = study(images, {("finetuned", "logreg"): (0.9, 0.7)}, held_out="ant")
    shown = subject(*tables.read(store(tmp_path / "results", [*every, *alone])))
    (tuned,) = (one for one in shown.entrants if one.way == "finetune")
    for score in tuned.scores.values():
        assert score.runs == 1 and score.low == score.mean == score.high


def test_of_several_numbers_of_training_images_the_least_and_the_most_are_said(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", KINDS[:3], each=4)
    every = [one for kind in KINDS[:3] for one in study(images, PROBED, held_out=kind)]
    shown = subject(*tables.read(store(tmp_path / "results", every)))
    assert "· 900 training images" in words.facts(shown)
    sizes = pl.col("held_out").replace_strict({"ant": 800, "bee": 700, "cat": 900}, return_dtype=pl.Int64)
    shown = replace(shown, table=shown.table.with_columns(train_rows=sizes))
    assert "· 700 to 900 training images" in words.facts(shown)
    assert any("700 to 900" in said for said in words.compared(shown))


def test_of_several_seeds_the_details_are_of_the_run_where_the_best_head_is_least_accurate(tmp_path: Path) -> None:
    images = Images(tmp_path / "data", ("cat", "dog", "owl"))
    novel = {("cat", 1): 0.9, ("cat", 2): 0.8, ("owl", 1): 0.9, ("owl", 2): 0.7, ("owl", 3): 0.9, ("cat", 3): 0.9}
    every = [
        one
        for (held_out, seed), share in novel.items()
        for one in study(
            images,
            {("base", "zero-shot"): (0.5, 0.5), ("base", "logreg"): (0.9, share)},
            held_out=held_out,
            seed=seed,
        )
    ]
    folder = store(tmp_path / "results", every)

    def details(held_out: str | None) -> str:
        return Structure(page.write(folder, held_out=held_out).page.read_text()).text

    shown = details(None)
    assert "with the category owl held out" in shown and "They are of seed 2." in shown
    shown = details("cat")
    assert "with the category cat held out" in shown and "They are of seed 1." in shown
