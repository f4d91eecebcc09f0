"""The version, below everything that names it."""

from functools import cache
from pathlib import Path

__version__ = "0.2.0"


@cache
def code_version() -> str:
    """The toolkit's version and a hash over its Python files."""
    import hashlib

    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(here.rglob("*.py")):
        digest.update(path.relative_to(here).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:10]}"
