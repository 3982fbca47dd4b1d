"""The dataframe engine: Daft runs the corpus query in Rust, on all cores of one machine or on a Ray cluster."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
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


def processors(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processors this process may use, as Daft counts them: those it is bound to, and no more than the quota
    of time that a container or another of Linux's control groups has, its own or one above it.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
        quotas = [quota for _, kinds, path in lines for quota in _quotas(mounted, kinds.split(","), path.strip("/"))]
    except (OSError, ValueError):  # no such groups, or nothing that one may read: no quota is known
        return bound
    return max(1, min([bound, *quotas]))


def _quotas(mounted: Path, kinds: list[str], path: str) -> Iterator[int]:
    """The whole processors that a control group and those above it allow, where they say."""
    if kinds != [""] and "cpu" not in kinds:
        return
    top = mounted if kinds == [""] else mounted / "cpu"
    for folder in (top / path, *(above for above in (top / path).parents if above.is_relative_to(top))):
        if (folder / "cpu.max").is_file():  # version 2
            share, of_time = (folder / "cpu.max").read_text().split()
        elif (folder / "cpu.cfs_quota_us").is_file():  # version 1
            share, of_time = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        else:
            continue
        if share not in ("max", "-1"):
            yield int(share) // max(1, int(of_time))


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
