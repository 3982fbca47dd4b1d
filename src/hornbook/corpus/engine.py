"""The dataframe engine: Daft runs the corpus query in Rust, on all cores of one machine or on a Ray cluster."""

import importlib.util
import os
from types import ModuleType
from typing import Literal

from hornbook.errors import UserError

Engine = Literal["local", "ray"]


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


def use_engine(engine: Engine) -> None:
    """Have every later query of this process run on this machine, or on Ray.

    Ray is the cluster at the address in the environment variable RAY_ADDRESS, or a local one that is started
    here. Its usage reports are switched off.

    Raises UserError where Ray is not installed, or where another engine is at work in this process already.
    """
    daft = load_daft()
    if engine == "ray":
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                'corpus.engine: "ray" needs Ray, which is not installed. Run: pip install "hornbook[cluster]"'
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    try:
        if engine == "ray":
            daft.set_runner_ray(noop_if_initialized=True)
        elif daft.get_or_infer_runner_type() != "native":
            daft.set_runner_native()
    except Exception:  # the class differs between Daft's versions
        raise UserError(
            f"corpus.engine: {engine!r} cannot follow another engine in one process. Run each recipe by itself."
        ) from None
