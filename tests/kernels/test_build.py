"""The C functions are built where they can be; where they cannot, there are none, and a sentence says so."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hornbook.kernels import blocks
from hornbook.kernels.blocks import blocks_note, load_blocks
from hornbook.kernels.build import load_library

CPU = torch.device("cpu")
FOLDER = Path(blocks.__file__).parent
BUILD = f"""
from pathlib import Path
from hornbook.kernels.build import load_library
assert load_library(Path({str(FOLDER)!r})) is not None
"""
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    """What was found in one environment does not serve in the next."""
    load_blocks.cache_clear()
    yield
    load_blocks.cache_clear()


@needs_compiler
def test_where_a_compiler_and_the_instructions_are_the_functions_are_there() -> None:
    assert (load_blocks() is not None) == torch.cpu._is_avx512_bf16_supported()
    assert blocks_note(CPU, torch.bfloat16) is None


@pytest.mark.parametrize("compiler", ["/no/such/compiler", "false"])
def test_where_they_cannot_be_built_torch_serves_and_a_sentence_says_so(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    assert load_blocks() is None
    assert ("no C compiler" in str(blocks_note(CPU, torch.bfloat16))) == torch.cpu._is_avx512_bf16_supported()
    assert blocks_note(CPU, torch.float32) is None


@needs_compiler
def test_a_compiler_may_have_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "cc -pipe")
    assert load_library(FOLDER) is not None


@needs_compiler
def test_a_spoilt_library_is_built_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # In a process of its own: what is loaded here stays so under its name.
    subprocess.run([sys.executable, "-c", BUILD], check=True)
    (built,) = (tmp_path / "hornbook").glob("kernels-*.so")
    built.write_bytes(b"")
    assert load_library(FOLDER) is not None
    assert built.stat().st_size > 0


def test_a_cache_that_cannot_be_written_is_as_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    assert load_library(FOLDER) is None


def test_nobodys_home_is_as_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert load_library(FOLDER) is None
