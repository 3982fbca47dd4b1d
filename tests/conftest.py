"""What several tests share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does, and says nothing about the code.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

_REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def real_data() -> Path:
    """A folder of real data sets, named by HORNBOOK_DATA. What needs it is skipped where there is none."""
    folder = Path(os.environ.get("HORNBOOK_DATA", _REPOSITORY / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("no real data here: set HORNBOOK_DATA to a folder that has some")
    return folder.resolve()


@pytest.fixture(scope="session")
def recipes_directory() -> Path:
    """The recipes that come with Hornbook."""
    return _REPOSITORY / "recipes"


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small valid recipe named "little"; what is given replaces its lines from [pretrain] on."""

    def write(rest: str = "[pretrain]\ntokens = 4096\nglobal_batch_tokens = 1024\n", top: str = "") -> Path:
        path = tmp_path / "little.toml"
        path.write_text(f'name = "little"\n{top}\n{rest}', encoding="utf-8")
        return path

    return write
