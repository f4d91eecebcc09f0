"""Whether the model hub can be reached, and what its client says meanwhile."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def can_reach(host: str, port: int = 443) -> bool:
    """Whether one connection attempt succeeds. Behind a proxy that is not tried, and True."""
    if any(os.environ.get(name) for name in PROXIES):
        return True
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return False
    return True


def fail_fast_without_network() -> None:
    """Put the hub's client into offline mode if the hub cannot be reached; else it retries for most of a minute."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return
    hub = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if not can_reach(hub.hostname or "", hub.port or 443):
        os.environ["HF_HUB_OFFLINE"] = "1"
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


@contextmanager
def quiet_client() -> Iterator[None]:
    """The hub's client and open_clip log, at every attempt, what an error of ours says in one line. Bars stay."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
