"""Fixtures that every test file may ask for."""

from pathlib import Path

import pytest
from places import SHARED


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images beside the project; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the real images of ../shared/data, which are not here")
    return SHARED / "data"
