"""Judged documents on their way to the shards: files of a bounded size, each of them whole or not there.

The engine hands documents over in whatever order it finishes them. They are gathered into files of about
STAGED_BYTES, sorted by index within each. A file that stands under its name is complete, so after a kill the
finished ones are kept, and only the documents in none of them are judged again. Later steps go by the index
alone, so it makes no difference which documents share a file.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from hornbook.corpus.engine import load_daft
from hornbook.corpus.minhash import N_HASHES, Banding, StoredDigests, digest
from hornbook.run_directory import atomic_write, atomic_writer

if TYPE_CHECKING:
    from daft import DataFrame

STAGED_BYTES = 32 * 2**20
# Small, so that a shard reads little of what belongs to its neighbours.
ROWS_PER_GROUP = 1024
SIGNATURE = "signature"
_INPUTS = "inputs"


class Staging:
    """A folder of staged files, `staged-NNNNN.parquet`, with the digests of their signatures beside them."""

    def __init__(self, folder: Path, inputs: str) -> None:
        """Open the folder for documents that depend on `inputs` alone; what came of other inputs is removed."""
        self._folder = folder
        mark = folder / _INPUTS
        if not mark.is_file() or mark.read_text(encoding="utf-8") != inputs:
            shutil.rmtree(folder, ignore_errors=True)
            atomic_write(mark, inputs)
        # Indices of a part are consecutive, so millions of documents make few stretches.
        index = numpy.sort(self.column("index").to_numpy()) if self.files else numpy.empty(0, dtype=numpy.int64)
        is_break = numpy.diff(index) > 1
        self._starts = numpy.concatenate([index[:1], index[1:][is_break]])
        self._stops = numpy.concatenate([index[:-1][is_break], index[-1:]])

    @property
    def files(self) -> list[Path]:
        """The finished files, in the order in which they were written."""
        return sorted(self._folder.glob("staged-*.parquet"))

    def without_finished(self, documents: "DataFrame") -> "DataFrame":
        """Those of `documents` that were in no finished file when the folder was opened, lazily."""
        starts, stops = self._starts, self._stops
        if not len(starts):
            return documents
        daft = load_daft()

        @daft.func.batch(return_dtype=daft.DataType.bool())
        def is_unfinished(column):  # type: ignore[no-untyped-def]
            wanted = column.to_arrow().to_numpy(zero_copy_only=False)
            stretch = numpy.searchsorted(starts, wanted, side="right") - 1
            return pyarrow.array((stretch < 0) | (wanted > stops[stretch]))

        return documents.where(is_unfinished(daft.col("index")))

    def write(self, batches: Iterable[pyarrow.RecordBatch], cut: Banding | None) -> Iterator[tuple[int, int]]:
        """Write judged documents, and yield for each batch how many documents and bytes of text it had.

        `cut` is the banding for their signatures, where they have some.
        """
        number = 1 + max((int(path.stem.removeprefix("staged-")) for path in self.files), default=-1)
        waiting: list[pyarrow.RecordBatch] = []
        n_bytes = 0
        for batch in batches:
            if batch.num_rows:
                waiting.append(batch)
                n_bytes += batch.nbytes
            if n_bytes >= STAGED_BYTES:
                self._write_file(number, pyarrow.Table.from_batches(waiting), cut)
                number, waiting, n_bytes = number + 1, [], 0
            yield batch.num_rows, pyarrow.compute.sum(batch["n_raw_bytes"]).as_py() or 0
        if waiting:
            self._write_file(number, pyarrow.Table.from_batches(waiting), cut)

    def _write_file(self, number: int, table: pyarrow.Table, cut: Banding | None) -> None:
        table = table.sort_by("index").combine_chunks()
        if cut is not None:
            signatures = table[SIGNATURE].combine_chunks()
            made = digest(signatures.flatten().to_numpy().reshape(len(table), N_HASHES), cut)
            for path, array in zip(self._digest_files(number), made, strict=True):
                with atomic_writer(path) as file:
                    numpy.save(file, array)
            table = table.drop_columns([SIGNATURE])
        # Last, for this is the file that says that all of them are there.
        with atomic_writer(self._folder / f"staged-{number:05}.parquet") as file:
            pyarrow.parquet.write_table(table, file, row_group_size=ROWS_PER_GROUP, compression="lz4")

    def _digest_files(self, number: int) -> tuple[Path, Path]:
        return self._folder / f"bands-{number:05}.npy", self._folder / f"low-bytes-{number:05}.npy"

    def digests(self) -> StoredDigests:
        """The digests of all documents, in the order of `column`."""
        return StoredDigests([self._digest_files(int(path.stem.removeprefix("staged-"))) for path in self.files])

    def column(self, name: str) -> pyarrow.ChunkedArray:
        """One column of all documents, file by file."""
        parts = [pyarrow.parquet.read_table(path, columns=[name])[name] for path in self.files]
        return pyarrow.chunked_array([chunk for part in parts for chunk in part.chunks], type=parts[0].type)

    def in_order(self, firsts: Iterable[int], lasts: Iterable[int]) -> Iterator[pyarrow.Table]:
        """Tables of the documents from one index to another, sorted by index."""
        groups = self._groups()
        for first, last in zip(firsts, lasts, strict=True):
            parts = []
            for path, numbers in _by_file(groups[(groups["last"] >= first) & (groups["first"] <= last)]):
                with pyarrow.parquet.ParquetFile(self.files[path]) as file:
                    rows = file.read_row_groups(numbers)
                index = rows["index"].to_numpy()
                parts.append(rows.filter(pyarrow.array((index >= first) & (index <= last))))
            yield pyarrow.concat_tables(parts).sort_by("index").combine_chunks()

    def _groups(self) -> numpy.ndarray:
        """For each row group of each file: the numbers of both, the first and the last index."""
        found = []
        for number, path in enumerate(self.files):
            with pyarrow.parquet.ParquetFile(path) as file:
                column = file.schema_arrow.get_field_index("index")
                for group in range(file.metadata.num_row_groups if file.metadata.num_rows else 0):
                    span = file.metadata.row_group(group).column(column).statistics
                    found.append((number, group, span.min, span.max))
        return numpy.array(found, dtype=[("file", "i8"), ("group", "i8"), ("first", "i8"), ("last", "i8")])

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder)


def _by_file(groups: numpy.ndarray) -> Iterator[tuple[int, list[int]]]:
    for file in numpy.unique(groups["file"]):
        yield int(file), groups["group"][groups["file"] == file].tolist()
