"""Work on texts that the engine cannot do in Rust, done in Python for only those documents that need it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.compute

from hornbook.corpus.engine import load_daft

if TYPE_CHECKING:
    from daft import Expression


def where_needed(text: "Expression", is_needed: "Expression", change: Callable[[str], str]) -> "Expression":
    """The texts with `change` applied where `is_needed` holds. The other texts are never turned into Python's.

    Args:
        text: string column.
        is_needed: boolean column; null counts as false.
        change: from text to text. It is pickled where other machines do the work.
    """
    daft = load_daft()

    @daft.func.batch(return_dtype=daft.DataType.string())
    def change_batch(texts, are_needed):  # type: ignore[no-untyped-def]
        array = texts.to_arrow()
        mask = pyarrow.compute.fill_null(are_needed.to_arrow(), False)
        chosen = array.filter(mask).to_pylist()
        if not chosen:
            return texts
        changed = pyarrow.array([t if t is None else change(t) for t in chosen], array.type)
        return pyarrow.compute.replace_with_mask(array, mask, changed)

    return change_batch(text, is_needed)
