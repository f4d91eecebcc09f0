"""Heads without embeddings: a network on the pixels, and a tree on the facts of the files."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from trees import cifake_files, jpeg, write_folder

from toolkit.cli import main as cli
from toolkit.data.images import decode
from toolkit.data.manifest import Dataset, frame
from toolkit.data.split import select
from toolkit.encoders.features import FACTS, Pixels, file_facts
from toolkit.errors import ImageError
from toolkit.evaluation import audit
from toolkit.heads.cnn import SmallCNN, initial_weights
from toolkit.heads.shortcut import Shortcut


def saved(kind: str = "JPEG", size: tuple[int, int] = (48, 32), mode: str = "RGB", **how: object) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, kind, **how)
    return data.getvalue()


def facts(data: bytes) -> dict[str, float]:
    return dict(zip(FACTS, file_facts(data).tolist(), strict=True))


def test_facts_of_a_file_are_those_that_it_was_saved_with() -> None:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    data = saved(quality=50, subsampling=2, progressive=True, exif=exif, dpi=(72, 72), icc_profile=b"x" * 200)
    found = facts(data)
    assert (found["width"], found["height"], found["aspect"]) == (48, 32, 1.5)
    assert (found["bytes"], found["bytes per pixel"]) == (len(data), pytest.approx(len(data) / (48 * 32)))
    assert found["JPEG subsampling"] == 2
    assert all(found[name] == 1 for name in ("EXIF", "colour profile", "resolution", "progressive JPEG"))
    plain = facts(saved(quality=95, subsampling=0))
    assert plain["JPEG luminance table"] < found["JPEG luminance table"] and plain["JPEG subsampling"] == 0
    assert all(plain[name] == 0 for name in ("EXIF", "colour profile", "resolution", "XMP", "progressive JPEG"))
    png = facts(saved("PNG", mode="RGBA"))
    assert png["format"] != plain["format"] and png["colour mode"] != plain["colour mode"]
    assert png["JPEG luminance table"] == 0


def test_a_file_that_is_no_image_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        file_facts(b"nothing")


def test_pixels_are_the_decoded_ones_and_another_size_is_made_small() -> None:
    data = jpeg(1)
    assert np.array_equal(Pixels().prepare(data).reshape(3, 32, 32), np.asarray(decode(data)).transpose(2, 0, 1))
    assert Pixels().prepare(saved(size=(100, 70))).shape == (3 * 32 * 32,)


def a_dataset(make: dict[str, object], labels: int = 40) -> Dataset:
    """Grey squares whose labels differ only in how they were saved: `make` maps a label to the arguments of `save`."""
    rows, files = [], {}
    for split in ("train", "test"):
        for number in range(labels):
            for label, how in make.items():
                path = f"{split}/{label}/{number}"
                shade = Image.new("RGB", how.get("size", (32, 32)), (number + 100 * (split == "test"),) * 3)
                data = io.BytesIO()
                shade.save(data, how.get("kind", "JPEG"), quality=how.get("quality", 90))
                files[path] = data.getvalue()
                rows.append((path, label, None, split))
    return Dataset("made", "", frame(rows), files.__getitem__, "folder")


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ({"kind": "JPEG"}, {"kind": "PNG"}),
        ({"size": (32, 32)}, {"size": (64, 32)}),
        ({"quality": 95}, {"quality": 75}),
    ],
)
def test_labels_told_by_files_are_noticed_and_the_line_names_the_facts(
    tmp_path: Path, real: dict[str, object], fake: dict[str, object]
) -> None:
    dataset = a_dataset({"FAKE": fake, "REAL": real})
    line = audit.summary(dataset, select(dataset, "none", None, None), tmp_path)
    assert line is not None and "Careful" in line and "1.000" in line
    assert any(name in line for name in FACTS)


def test_every_fact_that_alone_tells_the_label_is_named_with_its_share_of_the_test_images(tmp_path: Path) -> None:
    """Width and height tell everything, the file's size all but the four large test pictures; the shape is equal."""
    dataset = a_dataset({"FAKE": {"size": (32, 32)}, "REAL": {"size": (64, 64)}})
    large = [f"test/FAKE/{number}" for number in range(4)]
    padded = Dataset(
        "made", "", dataset.rows, lambda path: dataset.read(path) + bytes(9000 * (path in large)), "folder"
    )
    line = audit.summary(padded, select(padded, "none", None, None), tmp_path)
    assert line is not None
    told = "picture width 1.000 [0.95–1.00], picture height 1.000 [0.95–1.00], file size (bytes) 0.950 [0.88–0.98],"
    assert told in line and line.endswith("guessing 0.500.")
    assert "shape" not in line and "JPEG" not in line


def test_a_set_whose_labels_are_saved_alike_is_clean_and_nothing_is_read_twice(tmp_path: Path) -> None:
    dataset = a_dataset({"FAKE": {}, "REAL": {}}, labels=30)
    distinct = Dataset(
        "made", "", dataset.rows, lambda path: dataset.read(path) + path.split("/")[1].encode(), "folder"
    )
    selection = select(distinct, "none", None, None)
    assert audit.summary(distinct, selection, tmp_path) is None

    def unreadable(path: str) -> bytes:
        raise AssertionError("its facts are in the cache")

    assert audit.summary(Dataset("made", "", dataset.rows, unreadable, "folder"), selection, tmp_path) is None


def test_contents_that_carry_both_labels_are_counted() -> None:
    rows = pl.DataFrame({"sha256": ["a", "a", "b", "b", "c"], "label": ["REAL", "FAKE", "REAL", "REAL", "FAKE"]})
    assert audit.clashes(rows) == 1


def test_the_tree_uses_no_fact_if_none_helps_and_finds_a_threshold_if_one_does() -> None:
    rng = np.random.default_rng(0)
    y = np.array(["FAKE", "REAL"] * 200)
    X = rng.normal(size=(400, 5)).astype(np.float32)
    blind = Shortcut("folds").fit(X, y)
    assert blind.choice_["depth"] == 0 and not blind.importances_.any()
    assert np.allclose(blind.predict_proba(X), 0.5)
    X[:, 3] += 4 * (y == "REAL")
    seeing = Shortcut("folds").fit(X, y)
    assert seeing.importances_.argmax() == 3 and seeing.score(X, y) > 0.95


def test_the_network_is_the_published_one() -> None:
    """Torch's own layers, put together as the paper says, give the same probabilities and as many weights."""
    nn = torch.nn
    plain = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2048, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid()),
    )
    weights = initial_weights(0)
    with torch.no_grad():
        for parameter, array in zip(plain.parameters(), weights.values(), strict=True):
            parameter.copy_(torch.from_numpy(array))
    head = SmallCNN()
    head.weights_, head.classes_, head.n_features_in_ = weights, np.array(["FAKE", "REAL"]), 3072
    X = np.random.default_rng(0).integers(0, 256, (5, 3072)).astype(np.float32)
    with torch.no_grad():
        theirs = plain(torch.from_numpy(X / 255).view(-1, 3, 32, 32))[:, 0].numpy()
    assert np.allclose(head.predict_proba(X)[:, 1], theirs, rtol=1e-5, atol=1e-5)


def test_the_network_learns_and_the_same_seed_gives_the_same_answers() -> None:
    """Brighter pictures are REAL."""
    rng = np.random.default_rng(0)
    y, groups = np.array(["FAKE", "REAL"] * 60), np.repeat(["bird", "dog", "frog"], 40)
    X = (rng.integers(0, 128, (120, 3072)) + 100 * (y == "REAL")[:, None]).astype(np.float32)
    first, second, other = (SmallCNN(most_epochs=3, seed=seed).fit(X[:90], y[:90], groups[:90]) for seed in (0, 0, 1))
    assert np.array_equal(first.predict_proba(X[90:]), second.predict_proba(X[90:]))
    assert not np.array_equal(first.predict_proba(X[90:]), other.predict_proba(X[90:]))
    assert first.score(X[90:], y[90:]) == 1.0 and first.choice_["by"] == "category"
    assert all(isinstance(array, np.ndarray) for array in first.weights_.values())


def call(home: Path, *words: str) -> str:
    place = ["--data", home / "data", "--cache", home / "cache", "--results", home / "results", "--model", "nano"]
    sizes = ["--train-per-label", "12", "--test-per-label", "10"]
    result = CliRunner().invoke(cli.cli, [words[0], *map(str, place), *sizes, *words[1:]])
    assert result.exit_code == 0, result.output
    return result.output


def test_compare_warns_of_a_dirty_set_and_scores_the_network_on_the_same_images(tmp_path: Path) -> None:
    files = cifake_files(6, 6)
    for name, data in files.items():
        if "/REAL/" in name:  # only the quality differs
            again = io.BytesIO()
            decode(data).save(again, "JPEG", quality=60)
            files[name] = again.getvalue()
    write_folder(tmp_path / "data", files)
    call(tmp_path, "embed")
    output = call(tmp_path, "compare", "--heads", "logreg,cnn,shortcut")
    assert "Careful: the label shows in the files" in output
    table = pl.read_csv(tmp_path / "results/results.csv")
    kinds = dict(table.select("head", "encoder").iter_rows())
    assert kinds == {"logreg": "base", "cnn": "pixels", "shortcut": "file facts"}
    made = pl.read_csv(tmp_path / "results/predictions.csv")
    images = [made.filter(pl.col("head") == head).sort("path")["sha256"].to_list() for head in kinds]
    assert images[0] == images[1] == images[2]
    assert table.filter(pl.col("test") == "base").n_unique("data_hash") == 1
    assert "0 differ" in CliRunner().invoke(cli.cli, ["verify-results", "--results", str(tmp_path / "results")]).output
