"""Fitted heads as safetensors files: arrays as tensors, the rest as JSON in the metadata, never code.

The library for this is skops, but importing it takes 3 seconds (it imports torch and all of scikit-learn), longer than
`compare` takes.
"""

import importlib
import json
import pkgutil
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
def trusted() -> dict[str, type]:
    """The only classes that a file may name: those of `toolkit.heads`, and `OF_SCIKIT_LEARN`."""
    names = [module.name for module in pkgutil.iter_modules(heads.__path__) if module.name != "stored"]
    ours = [vars(importlib.import_module(f"{heads.__name__}.{name}")) for name in names]
    classes = {one for module in ours for one in module.values() if isinstance(one, type) and _is_ours(one)}
    for module, wanted in OF_SCIKIT_LEARN.items():
        classes |= {getattr(importlib.import_module(module), name) for name in wanted}
    return {f"{one.__module__}.{one.__qualname__}": one for one in classes}


def _is_ours(one: type) -> bool:
    return issubclass(one, BaseEstimator) and one.__module__.startswith(f"{heads.__name__}.")


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
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name not in trusted():
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
    if value["class"] not in trusted():
        raise ValueError(f"it names the class {value['class']}")
    made: Any = object.__new__(trusted()[value["class"]])
    vars(made).update({key: _revived(one, tensors) for key, one in of})
    return made
