"""C files, built once by the machine's own compiler and kept in the user's cache.

Nothing is installed for it: where there is no compiler, `load_library` gives None, and torch's operations serve.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC")
_BEST_FIRST = (("-march=native", "-fopenmp"), ("-mcpu=native",), ())
"""For gcc and clang on x86; for Apple's clang; for any. The code needs no more than the last."""


def load_library(folder: Path, flags: Sequence[str] = ()) -> ctypes.CDLL | None:
    """All C files of a folder as one library, built where this machine and these files have not been seen before."""
    sources = sorted(folder.glob("*.c"))
    texts = [path.read_bytes() for path in (*sources, *sorted(folder.glob("*.h")))]
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hornbook"
        key = hashlib.sha256(b"".join(texts) + repr((_FLAGS, flags, _BEST_FIRST, _machine())).encode()).hexdigest()[:16]
        path = cache / f"kernels-{key}.so"
        if path.is_file():
            with suppress(OSError):  # a file that was spoilt is built anew
                return ctypes.CDLL(str(path))
        compiler = shlex.split(os.environ.get("CC") or "cc")
        if shutil.which(compiler[0]) is None:
            return None
        cache.mkdir(parents=True, exist_ok=True)
        is_built = _build([*compiler, *_FLAGS, *flags], sources, path)
        return ctypes.CDLL(str(path)) if is_built else None
    except (OSError, RuntimeError):  # the second: nobody's home
        return None


def _build(compiler: list[str], sources: list[Path], path: Path) -> bool:
    """Write the library under a name of its own and move it, since several processes may do so at once."""
    for best in _BEST_FIRST:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [*compiler, *best, *map(str, sources), "-o", str(made), "-lm"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                os.replace(made, path)
                return True
    return False


def _machine() -> str:
    """What the code is built for: another processor may not have the same instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{os.uname().sysname} {os.uname().machine} {flags}"
