"""Converts a .tflite file to modifiable objects of the schema, and back to bytes."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf.errors import InputError
from tflite_export.tflite.model_file import FILE_IDENTIFIER, READ_ERRORS

# The schema requires this alignment (`force_align`), because runtimes read constants in place. The
# generated Python code does not apply it.
_ALIGNMENT = 16


class _AlignedBuilder(flatbuffers.Builder):
    def CreateNumpyVector(self, x: np.ndarray) -> int:
        if x.dtype != np.uint8:
            return super().CreateNumpyVector(x)
        self.StartVector(1, x.size, _ALIGNMENT)
        self.head -= x.size
        self.Bytes[self.head : self.head + x.size] = x.tobytes()
        return self.EndVector()


def unpack(data: bytes) -> schema.ModelT:
    """Returns the file's tables, without data appended after them (the archive of its metadata).

    Raises:
      InputError: the file is damaged.
    """
    try:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    except READ_ERRORS as error:
        raise InputError(f"the model is damaged or truncated: {' '.join(str(error).split())}") from error


def pack(model: schema.ModelT) -> bytes:
    """Returns the bytes of a .tflite file, with its constants aligned to 16 bytes."""
    sizes = (len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = _AlignedBuilder(sum(sizes) + 2**18)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())
