"""Hashes of the settings and the data behind a result."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import polars as pl


def config_hash(settings: Mapping[str, Any]) -> str:
    """12 hex characters over JSON-able settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def data_hash(rows: pl.DataFrame) -> str:
    """12 hex characters over the rows' contents, labels and splits, in their order."""
    digest = hashlib.sha256()
    for row in rows.select("sha256", "label", "split").iter_rows():
        digest.update(" ".join(row).encode() + b"\n")
    return digest.hexdigest()[:12]
