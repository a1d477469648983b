"""Files that are packed as they are written."""

from __future__ import annotations

import io
import os
import zlib
from typing import Any

#: Bits of the window of deflate, and 16 for the header and the end of a file of gzip.
_GZIP = 15 + 16


class Packed(io.RawIOBase):
    """A file of gzip that takes its content piece by piece, so that all of it is never in memory at once.

    Parameters
    ----------
    path : path
    stable : bool
        Whether the same content is the same bytes. Without it, ISA-L packs in a fifth of the time; its output
        depends on the addresses of its memory (one process in some hundreds differs).
    """

    def __init__(self, path: str | os.PathLike, stable: bool = True):
        from isal import isal_zlib

        super().__init__()
        self._file = io.BufferedWriter(io.FileIO(path, "wb"))
        # neither writes the time
        self._packer: Any = (zlib if stable else isal_zlib).compressobj(1, zlib.DEFLATED, _GZIP)
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._file.write(self._packer.compress(content))
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset != self._written:
            raise io.UnsupportedOperation("what is packed stays as it is")
        return offset

    def close(self) -> None:
        # a file that could not be opened is closed, too
        if not self.closed and hasattr(self, "_file"):
            try:
                self._file.write(self._packer.flush())
            finally:
                self._file.close()
        super().close()
