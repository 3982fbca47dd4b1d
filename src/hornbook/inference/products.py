"""The C functions of products.c, built once by the machine's own compiler and kept in the user's cache.

Nothing is installed for it: where there is no compiler, `load_products` gives None and torch's own products serve.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

_SOURCE = Path(__file__).with_name("products.c")
_FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC")
_BEST_FIRST = (("-march=native", "-fopenmp"), ("-mcpu=native",), ())
"""For gcc and clang on x86; for Apple's clang; for any. The code needs no more than the last."""


class Products:
    """out = vectors (...,I) times the rows of a matrix (O,I), as products.c says; both contiguous and on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_long
        self._functions = {}
        for dtype, name, n_pointers in (
            (torch.float32, "multiply_float32", 3),
            (torch.bfloat16, "multiply_bfloat16", 3),
            (torch.int8, "multiply_int8", 4),
        ):
            function = getattr(library, name)
            function.argtypes = [pointer] * n_pointers + [number] * 3 + [ctypes.c_int]
            function.restype = ctypes.c_int
            self._functions[dtype] = function

    def multiply(self, weight_OI: Tensor, scales_O: Tensor | None, vectors: Tensor) -> Tensor:
        """(...,O) float32. weight: float32, bfloat16, or int8 with the scale of each row; vectors (...,I): float32."""
        n_rows, n_columns = weight_OI.shape
        out = torch.empty((*vectors.shape[:-1], n_rows))
        addresses = [weight_OI.data_ptr(), vectors.data_ptr(), out.data_ptr()]
        if scales_O is not None:
            addresses.insert(1, scales_O.data_ptr())
        n_vectors = vectors.numel() // n_columns
        if self._functions[weight_OI.dtype](*addresses, n_columns, n_rows, n_vectors, torch.get_num_threads()):
            raise MemoryError
        return out


def load_products() -> Products | None:
    """The functions, built where this machine and this source have not been seen before; None without a compiler."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hornbook"
    key = hashlib.sha256(_SOURCE.read_bytes() + repr((_FLAGS, _BEST_FIRST, _machine())).encode()).hexdigest()[:16]
    path = folder / f"products-{key}.so"
    try:
        if not path.is_file():
            if compiler is None:
                return None
            folder.mkdir(parents=True, exist_ok=True)
            if not _build(compiler, path):
                return None
        return Products(ctypes.CDLL(str(path)))
    except OSError:
        return None


def _build(compiler: str, path: Path) -> bool:
    """Write the library under a name of its own and move it, since several processes may do so at once."""
    for best in _BEST_FIRST:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [compiler, *_FLAGS, *best, str(_SOURCE), "-o", str(made)]
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
