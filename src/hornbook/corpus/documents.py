"""Reading a curated corpus back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pyarrow import parquet

Split = Literal["train", "validation"]
_ROWS_AT_ONCE = 4096


def read_texts(folder: Path, split: Split) -> Iterator[list[str]]:
    """The texts of one split of the corpus in `folder`, in their order, a few thousand at a time."""
    for documents in read_documents(folder, split):
        yield [text for _, text in documents]


def read_documents(folder: Path, split: Split) -> Iterator[list[tuple[str, str]]]:
    """As `read_texts`, each text with the name of its source before it."""
    for path in sorted(folder.glob("documents-*.parquet")):
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["split", "source", "text"]):
                splits, sources, texts = (batch.column(name).to_pylist() for name in ("split", "source", "text"))
                yield [(source, text) for source, text, own in zip(sources, texts, splits, strict=True) if own == split]
