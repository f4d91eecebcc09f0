"""Fixtures that every test file may ask for."""

import os
from pathlib import Path

import pytest
from places import SHARED

if "PYTEST_XDIST_WORKER" in os.environ:  # before numpy and torch: two processes that share two cores take one each
    os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images beside the project; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the real images of ../shared/data, which are not here")
    return SHARED / "data"
