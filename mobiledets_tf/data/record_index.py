"""Random access to TFRecord files by record number, with the position of any damaged record."""

import os
import struct
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from mobiledets_tf.errors import InputError

# A record consists of its length (uint64), a checksum of the length (uint32), the data, and a checksum
# of the data (uint32).
_HEAD, _TAIL = 12, 4


class DamagedRecord(InputError):
    """Raised for a record with a wrong checksum or length; the message names file and byte offset."""

    def __init__(self, file: str, offset: int, reason: str):
        super().__init__(f"TFRecord file {file!r} is damaged at byte offset {offset}: {reason}")


class RecordIndex:
    """Index of the positions of all records in a list of files, in the order of the files.

    Building the index reads only the length of each record: 8 bytes.

    Args:
      files: paths, including those that only `tf.io.gfile` can open.

    Raises:
      InputError: a file cannot be opened.
      DamagedRecord: a record's length exceeds the file, so the records after it cannot be found.
    """

    def __init__(self, files: Sequence[str]):
        self.files = list(files)
        self._places = [(number, offset) for number, file in enumerate(files) for offset in _offsets(file)]
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._places)

    def read(self, number: int) -> bytes:
        """Reads the data of a record.

        Raises:
          DamagedRecord: a checksum is wrong.
        """
        from mobiledets_tf.compat import tf

        file, offset = self._places[number]
        with self._lock:
            try:
                return self._reader(file).read(offset)[0]
            except (tf.errors.OpError, IndexError) as error:
                reason = getattr(error, "message", "") or "the record ends early"
                raise DamagedRecord(self.files[file], offset, reason) from error

    def _reader(self, file: int) -> Any:
        from tensorflow.python.lib.io import tf_record

        if file not in self._readers:
            self._readers[file] = tf_record.tf_record_random_reader(self.files[file])
        return self._readers[file]


def _offsets(file: str) -> list[int]:
    """Returns the byte offsets of the records in one file."""
    size, opened = _open(file)
    offsets, offset = [], 0
    with opened as stream:
        while offset < size:
            stream.seek(offset)
            head = stream.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
            end = offset + _HEAD + length + _TAIL
            if end > size:
                raise DamagedRecord(file, offset, f"a record of {length} bytes extends beyond the file")
            offsets.append(offset)
            offset = end
    return offsets


def _open(file: str) -> tuple[int, BinaryIO]:
    """Opens a file and returns (size in bytes, binary stream)."""
    if "://" not in file:
        try:
            return os.path.getsize(file), open(file, "rb")
        except OSError as error:
            raise InputError(f"TFRecord file {file!r} cannot be read: {error.strerror}") from error
    from mobiledets_tf.compat import tf

    return tf.io.gfile.stat(file).length, tf.io.gfile.GFile(file, "rb")
