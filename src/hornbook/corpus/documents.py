"""Reading a curated corpus back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pyarrow import parquet

Split = Literal["train", "validation"]
_ROWS_AT_ONCE = 4096


def read_texts(folder: Path, split: Split) -> Iterator[list[str]]:
    """The texts of one split of the corpus in `folder`, in their order, a few thousand at a time."""
    for path in sorted(folder.glob("documents-*.parquet")):
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["split", "text"]):
                splits, texts = batch.column("split").to_pylist(), batch.column("text").to_pylist()
                yield [text for text, own in zip(texts, splits, strict=True) if own == split]
