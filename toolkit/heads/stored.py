"""Fitted heads as safetensors files: arrays as tensors, the rest as JSON in the metadata, never code.

The library for this is skops, but importing it takes 3 seconds (it imports torch and all of scikit-learn), longer than
`compare` takes.
"""

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator

from toolkit import heads
from toolkit.errors import ResultsError

FORMAT = "toolkit-head-1"
"""The only key in the metadata. safetensors writes several keys in random order; equal heads must give equal bytes."""
OF_SCIKIT_LEARN = {
    "sklearn.decomposition": ("PCA",),
    "sklearn.linear_model": ("LogisticRegression",),
    "sklearn.preprocessing": ("StandardScaler",),
}
"""The scikit-learn estimators that a head may contain, by module."""
NOT_STORED = "left_out_"
"""What the head said of training rows: `predict` needs none of it."""


@cache
def trusted(name: str) -> type | None:
    """The class of this full name, if it is one that a file may name: of `toolkit.heads`, or of `OF_SCIKIT_LEARN`.

    Only its own module is imported: all heads together take longer than storing three.
    """
    module, _, of_class = name.rpartition(".")
    ours = {f"{heads.__name__}.{one.name}" for one in pkgutil.iter_modules(heads.__path__)} & {module}
    theirs = [one for one, names in OF_SCIKIT_LEARN.items() if module.startswith(f"{one}.") and of_class in names]
    for place in (*ours, *theirs):
        found = getattr(importlib.import_module(place), of_class, None)
        if isinstance(found, type) and issubclass(found, BaseEstimator) and _full_name(found) == name:
            return found
    return None


def _full_name(of_class: type) -> str:
    return f"{of_class.__module__}.{of_class.__qualname__}"


def to_bytes(head: Any) -> bytes:
    """A fitted head as a file's bytes. Raises TypeError for state other than arrays, plain values and estimators."""
    from safetensors.numpy import save

    tensors: dict[str, np.ndarray] = {}
    about = {"scikit-learn": _minor(sklearn.__version__), "head": _plain(head, tensors)}
    return bytes(save(tensors, {FORMAT: json.dumps(about)}))


def from_bytes(data: bytes, name: str) -> Any:
    """The head in a file that `to_bytes` made; `name` is the file's name for errors.

    Raises ResultsError for any other file, for a class that is not `trusted`, and for another version of scikit-learn.
    """
    again = "run python cli.py compare again, which writes it again"
    try:
        about, tensors = _open(data)
        made_with = about["scikit-learn"]
        head = _revived(about["head"], tensors)
    except Exception as error:  # a damaged or hostile file can make safetensors, json and numpy raise anything
        raise ResultsError(f"{name} is not a head that can be trusted ({str(error)[:120]}): {again}.") from error
    if made_with != _minor(sklearn.__version__):
        raise ResultsError(f"{name} was made with scikit-learn {made_with}, this is {sklearn.__version__}: {again}.")
    return head


@contextmanager
def without_vectors(head: Any, training: Callable[[], np.ndarray]) -> Iterator[bool]:
    """Inside the block `head` lacks its `vectors_` if they are `training` (`[N, D]` of unit length), which the cache
    has already -> whether it lacks them. `training` is called only for a head that has vectors."""
    vectors = getattr(head, "vectors_", None)
    in_cache = vectors is not None and np.array_equal(vectors, training())
    if in_cache:
        head.vectors_ = None
    try:
        yield in_cache
    finally:
        if in_cache:
            head.vectors_ = vectors


def _open(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors.numpy import load

    length = int.from_bytes(data[:8], "little")
    tensors = load(data)  # checks the header first
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"][FORMAT]), tensors


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _plain(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    """`value` as JSON; arrays go into `tensors` and are replaced by their number."""
    if value is None or isinstance(value, bool | int | float | str):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return _plain(value.item(), tensors)
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUS":
            texts = [_plain(one, tensors) for one in value.ravel().tolist()]
            return {"is": "texts", "of": texts, "shape": list(value.shape), "dtype": str(value.dtype)}
        tensors[str(len(tensors))] = np.ascontiguousarray(value)
        return {"is": "array", "of": str(len(tensors) - 1), "shape": list(value.shape)}
    if isinstance(value, list | tuple):
        return {"is": type(value).__name__, "of": [_plain(one, tensors) for one in value]}
    if isinstance(value, dict):
        return {"is": "dict", "of": [[_plain(key, tensors), _plain(one, tensors)] for key, one in value.items()]}
    name = _full_name(type(value))
    if trusted(name) is None:
        raise TypeError(f"a head cannot be stored with a {name} in it")
    state = [[key, _plain(one, tensors)] for key, one in vars(value).items() if key != NOT_STORED]
    return {"is": "object", "class": name, "of": state}


def _revived(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    """The inverse of `_plain`."""
    if not isinstance(value, dict):
        return value
    kind, of = value["is"], value["of"]
    if kind == "array":
        return tensors[of].reshape(value["shape"])
    if kind == "texts":
        return np.array(of, dtype=value["dtype"]).reshape(value["shape"])
    if kind in ("list", "tuple"):
        found = [_revived(one, tensors) for one in of]
        return found if kind == "list" else tuple(found)
    if kind == "dict":
        return {_revived(key, tensors): _revived(one, tensors) for key, one in of}
    known = trusted(value["class"])
    if known is None:
        raise ValueError(f"it names the class {value['class']}")
    made: Any = object.__new__(known)
    vars(made).update({key: _revived(one, tensors) for key, one in of})
    return made
