"""Processes for tests that need several, or one to kill."""

import multiprocessing

PRELOADED = [
    "torch",
    "open_clip",
    "toolkit.finetuning.training",
    "toolkit.data.sources.folder",
    "toolkit.results.tables",
]
"""The fork server of a test run is started once, with the modules of whichever test comes first: so all name the same.
Only installed modules: a fork server of Python 3.11 does not find those of the tests."""


def clean_processes() -> multiprocessing.context.ForkServerContext:
    """Processes that start at once, their slow imports done, and inherit no threads: Polars' do not survive a fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
