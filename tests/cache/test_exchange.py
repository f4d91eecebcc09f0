"""Vectors of other tools become an encoder; exported vectors are imported unchanged."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from fakes import FakeEncoder
from trees import cifake_files, write_folder

from toolkit.cache.exchange import Vectors, export_vectors, import_vectors, read_vectors, record_of
from toolkit.cache.store import Cache
from toolkit.cli.main import cli
from toolkit.data.manifest import Dataset, hash_rows
from toolkit.data.sources import open_data
from toolkit.errors import CacheError, DataError

DIMENSION = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("exchange") / "data", cifake_files(4, 2))


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return open_data(data)


@pytest.fixture(scope="module")
def vectors(dataset: Dataset) -> np.ndarray:
    encoder = FakeEncoder(dimension=DIMENSION)
    return encoder.embed_images(np.stack([encoder.prepare(dataset.read(path)) for path in dataset.rows["path"]]))


def stored(root: Path, name: str, dataset: Dataset) -> np.ndarray:
    return Cache(root, record_of(name, DIMENSION, False)).read_images(
        hash_rows(dataset, dataset.rows)["sha256"].to_list()
    )


def as_clip_retrieval(root: Path, names: list[str], vectors: np.ndarray) -> Path:
    """Two partitions, as its writer names them: half precision, and captions beside the paths."""
    for number, part in enumerate((slice(None, 20), slice(20, None))):
        (root / "img_emb").mkdir(parents=True, exist_ok=True)
        (root / "metadata").mkdir(exist_ok=True)
        np.save(root / f"img_emb/img_emb_{number}.npy", vectors[part].astype(np.float16))
        table = pl.DataFrame({"image_path": names[part], "caption": [f"a {name}" for name in names[part]]})
        table.write_parquet(root / f"metadata/metadata_{number}.parquet")
    return root


def as_npz(root: Path, names: list[str], vectors: np.ndarray) -> Path:
    np.savez(root / "x.npz", embeddings=vectors, paths=np.array(names), labels=np.arange(len(names)))
    return root / "x.npz"


def as_parquet(root: Path, names: list[str], vectors: np.ndarray) -> Path:
    pl.DataFrame({"filename": names, "emb": vectors.tolist()}).write_parquet(root / "x.parquet")
    return root / "x.parquet"


@pytest.mark.parametrize("write", [as_clip_retrieval, as_npz, as_parquet])
@pytest.mark.parametrize("spelled", ["{}", "/home/somebody/data/{}", "data/{}"])
def test_vectors_of_other_tools_are_found_by_the_paths_of_their_images(
    tmp_path: Path, dataset: Dataset, vectors: np.ndarray, write: Callable[..., Path], spelled: str
) -> None:
    names = [spelled.format(path) for path in dataset.rows["path"]]
    done = import_vectors(read_vectors(write(tmp_path, names, vectors)), dataset, tmp_path / "cache", "theirs")
    assert done.stored == len(names) and done.problems.is_empty() and "weights" in done.unproven
    np.testing.assert_allclose(stored(tmp_path / "cache", "theirs", dataset), vectors, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("target", ["x.parquet", "x.npy"])
@pytest.mark.parametrize("with_paths", [True, False])
def test_what_is_exported_is_imported_to_the_last_bit(
    tmp_path: Path, dataset: Dataset, vectors: np.ndarray, target: str, with_paths: bool
) -> None:
    keys = hash_rows(dataset, dataset.rows)["sha256"].to_list()
    cache = Cache(tmp_path / "one", FakeEncoder(dimension=DIMENSION).record)
    cache.append_images(keys, vectors)
    assert export_vectors(cache, tmp_path / target, dataset if with_paths else None) == len(keys)
    done = import_vectors(read_vectors(tmp_path / target), dataset, tmp_path / "two", "copy")
    assert done.stored == len(keys) and np.array_equal(stored(tmp_path / "two", "copy", dataset), vectors)
    again = import_vectors(read_vectors(tmp_path / target), dataset, tmp_path / "two", "copy")
    assert (again.stored, again.present) == (0, len(keys))


def test_rows_that_cannot_be_used_are_named_and_the_others_are_stored(
    tmp_path: Path, dataset: Dataset, vectors: np.ndarray
) -> None:
    names = dataset.rows["path"].to_list()
    wrong = vectors.copy()
    wrong[1, 3] = np.nan
    rows = [*range(2, len(names)), 1, 2, 3]  # the first lacks, the second is no number, one is there twice
    listed, found = [names[row] for row in rows], wrong[rows]
    found[-1] += 1  # and another one twice with different vectors
    place = as_npz(tmp_path, [*listed, "elsewhere.jpg"], np.concatenate([found, vectors[:1]]))
    done = import_vectors(read_vectors(place), dataset, tmp_path / "cache", "theirs")
    assert done.stored == len(names) - 3
    told = {reason: sorted(set(of["path"])) for (reason,), of in done.problems.group_by("reason")}
    assert told == {
        "vectors of no image in the data": ["elsewhere.jpg"],
        "vectors with NaN or infinity": [names[1]],
        "vectors that differ from an earlier one of the same image": [names[3]],
        "images without a vector": [names[0]],
    }


def test_webdataset_keys_mean_the_file_of_that_name(tmp_path: Path, vectors: np.ndarray) -> None:
    places = [f"{split}/{label}/{number}" for split in ("train", "test") for label in "ab" for number in range(2)]
    files = {f"{place}{place.replace('/', '-')}.jpg": place.encode() for place in places}
    dataset = open_data(write_folder(tmp_path / "d", files))
    names = [Path(path).stem for path in dataset.rows["path"]]
    done = import_vectors(read_vectors(as_npz(tmp_path, names, vectors[:8])), dataset, tmp_path / "cache", "theirs")
    assert done.stored == 8 and np.array_equal(stored(tmp_path / "cache", "theirs", dataset), vectors[:8])


def test_what_was_told_is_checked_and_other_vectors_are_never_mixed(
    tmp_path: Path, dataset: Dataset, vectors: np.ndarray
) -> None:
    found = read_vectors(as_npz(tmp_path, dataset.rows["path"].to_list(), vectors))
    with pytest.raises(DataError, match="16 numbers each, not --dimension 512"):
        import_vectors(found, dataset, tmp_path / "cache", "theirs", dimension=512)
    with pytest.raises(DataError, match="not normalised"):
        import_vectors(found, dataset, tmp_path / "cache", "theirs", normalised=True)
    import_vectors(found, dataset, tmp_path / "cache", "theirs")
    with pytest.raises(CacheError, match="name of another encoder in the cache .imported, 16 numbers"):
        import_vectors(Vectors(found.keys, found.vectors[:, :8]), dataset, tmp_path / "cache", "theirs")
    found.vectors[5] += 1
    with pytest.raises(CacheError, match="other vectors of the same images: choose another --name"):
        import_vectors(found, dataset, tmp_path / "cache", "theirs")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"paths": np.array(["a"])}, "needs one matrix"),
        ({"x": np.ones((1, 2)), "y": np.ones((1, 3)), "paths": np.array(["a"])}, "needs one matrix"),
        ({"x": np.ones((2, 2)), "colour": np.array(["a", "b"])}, "does not say which images"),
        ({"x": np.ones((2, 2)), "paths": np.array(["a"])}, "2 vectors and 1 values"),
        ({"x": np.ones((2, 2)), "paths": np.array(["a", None], dtype=object)}, "cannot be read as vectors"),
    ],
)
def test_a_file_that_says_too_little_is_one_clear_line(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub wants a bool first
    with pytest.raises(DataError, match=says) as caught:
        read_vectors(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)


def call(root: Path, *words: object) -> Result:
    places = ["--cache", root / "cache", "--results", root / "results"]
    return CliRunner().invoke(cli, [str(word) for word in (*words, *places)])


def test_imported_vectors_have_the_figures_of_the_encoder_that_made_them(
    tmp_path: Path, data: Path, dataset: Dataset, vectors: np.ndarray
) -> None:
    """A probe of any model's vectors is one command, which needs no model."""
    encoder = FakeEncoder(dimension=DIMENSION)
    cache = Cache(tmp_path / "cache", encoder.record)
    cache.append_images(hash_rows(dataset, dataset.rows)["sha256"].to_list(), vectors)
    prompts = ["a", "b"]
    cache.append_prompts(prompts, encoder.embed_prompts(prompts))
    place = as_npz(tmp_path, dataset.rows["path"].to_list(), vectors)
    imported = call(tmp_path, "cache", "import", place, "--name", "theirs", "--data", data, "--dimension", DIMENSION)
    assert imported.exit_code == 0 and "theirs: imported 48 vectors" in imported.output, imported.output
    plan = ["--data", data, "--prompt", "FAKE=a", "--prompt", "REAL=b", "--train-per-label", 12, "--test-per-label", 4]
    own = call(tmp_path, "compare", *plan, "--model", "fake", "--pretrained", "none", "--heads", "knn")
    theirs = call(tmp_path, "compare", *plan, "--model", "theirs", "--heads", "zero-shot,knn")
    assert own.exit_code == theirs.exit_code == 0, own.output + theirs.output
    assert "zero-shot is left out" in theirs.output and "finetune" not in theirs.output
    made = pl.read_parquet(tmp_path / "results/predictions.parquet").sort("test", "path")
    first, second = (made.filter(model=model) for model in ("fake", "theirs"))
    assert len(second) and set(second["pretrained"]) == {"imported"} and set(second["head"]) == {"knn"}
    assert first.select("path", "predicted", "p_real").equals(second.select("path", "predicted", "p_real"))
    advice = imported.output.split("Now compare heads on them: python cli.py ")[1]
    typed = CliRunner().invoke(cli, [*shlex.split(advice), "--train-per-label", "12", "--test-per-label", "4"])
    assert typed.exit_code == 0, typed.output
    ran = call(tmp_path, "run", *plan, "--model", "theirs", "--heads", "knn")
    assert ran.exit_code == 0 and "Next:" in ran.output and "--features" not in ran.output, ran.output
    trained = call(tmp_path, "finetune", *plan, "--model", "theirs")
    assert trained.exit_code == 2 and "without a model to fine-tune: python cli.py compare" in trained.output
