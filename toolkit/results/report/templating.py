"""Where the pages' templates are, and how they are filled in."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def templates() -> "tuple[Environment, Callable[[str], str]]":
    """The templates, which escape whatever comes from data, and a function that reads one as it is."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("toolkit.results.report")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made, lambda name: loader.get_source(made, name)[0]
