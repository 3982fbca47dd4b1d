import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reader_class() -> type:
    """The class `Reader` of reader.py beside this file, which is no test module and no package's."""
    spec = importlib.util.spec_from_file_location("storyworld_reader", Path(__file__).with_name("reader.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Reader
