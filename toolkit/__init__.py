"""Should I prompt CLIP, probe it, or fine-tune it?

The names below are the library; each is imported when it is first used, so that `import toolkit` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toolkit.version import __version__ as __version__

if TYPE_CHECKING:
    from toolkit.data.sources import open_data
    from toolkit.errors import ToolkitError
    from toolkit.finetuning.recipes import RECIPES, Recipe, make_recipe
    from toolkit.heads import HEADS, make_head
    from toolkit.heads.knn import NearestNeighbours
    from toolkit.heads.logreg import LogisticProbe
    from toolkit.heads.zero_shot import ZeroShot
    from toolkit.pipeline.study import Embeddings, Study, Vectors, load_encoder
    from toolkit.results.tables import read as read_results

__all__ = [
    "HEADS",
    "RECIPES",
    "Embeddings",
    "LogisticProbe",
    "NearestNeighbours",
    "Recipe",
    "Study",
    "ToolkitError",
    "Vectors",
    "ZeroShot",
    "load_encoder",
    "make_head",
    "make_recipe",
    "open_data",
    "read_results",
]

_HOMES = {
    **dict.fromkeys(["Embeddings", "Study", "Vectors", "load_encoder"], "toolkit.pipeline.study"),
    **dict.fromkeys(["HEADS", "make_head"], "toolkit.heads"),
    **dict.fromkeys(["RECIPES", "Recipe", "make_recipe"], "toolkit.finetuning.recipes"),
    "LogisticProbe": "toolkit.heads.logreg",
    "NearestNeighbours": "toolkit.heads.knn",
    "ToolkitError": "toolkit.errors",
    "ZeroShot": "toolkit.heads.zero_shot",
    "open_data": "toolkit.data.sources",
    "read_results": "toolkit.results.tables",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), "read" if name == "read_results" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
