"""A library that needs care when it is imported."""

import sys
from typing import Any


def faiss() -> Any:
    """FAISS, imported when it is first used. On macOS it has one thread beside torch, since two OpenMP runtimes in one
    process crash there (faiss-wheels, issue 73)."""
    import faiss as library

    if sys.platform == "darwin" and "torch" in sys.modules:
        library.omp_set_num_threads(1)
    return library
