"""The dataframe engine: Daft runs the corpus query on all cores of one machine, in Rust."""

import os
from types import ModuleType


def load_daft() -> ModuleType:
    """Import Daft with its usage reports and its own progress bar switched off.

    Both are read from the environment when Daft is imported, so every module of the corpus gets Daft from
    here.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    import daft
    import daft.functions

    return daft
