"""What went wrong with a disk, in words: full, read-only, forbidden."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.checkpoint.api import CheckpointException

from hornbook.errors import RunFailed

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_NEXT_TO_NOTHING_BYTES = 2**20


def reason_of(failure: BaseException, directory: Path) -> str:
    """Why something could not be written into `directory`, in the system's words where it gave some."""
    if isinstance(failure, CheckpointException):
        failure = next(iter(failure.failures.values()))[0]
    reason: BaseException | None = failure
    while reason is not None:
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror
        reason = reason.__cause__ or reason.__context__
    # torch's own writer reports a full disk as a file that cannot be written.
    if shutil.disk_usage(directory).free < _NEXT_TO_NOTHING_BYTES:
        return os.strerror(errno.ENOSPC)
    return f"{type(failure).__name__}: {failure}".splitlines()[0]


@contextmanager
def disk_trouble_told(directory: Path) -> Iterator[None]:
    """Within the block, a disk that cannot be written to ends the run with one sentence (RunFailed)."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise RunFailed(
            f"{error.filename or directory}: cannot be written ({error.strerror}). Checkpoints written before are "
            "intact: make room or make it writable, and the same command goes on from the last."
        ) from error
