"""MobileDets in TensorFlow/Keras: search, training and int8 export of object detectors for devices.

`mobiledets_tf.api` has a function for each command; `mobiledets_tf.models.MobileDet` makes Keras models.
Importing the package is cheap: only the modules that need TensorFlow load it, and they do so through
`mobiledets_tf.compat`.
"""

from typing import Any

from mobiledets_tf.version import __version__

__all__ = ["__version__", "api"]


def __getattr__(name: str) -> Any:
    """Loads the API when it is first used."""
    if name == "api":
        import importlib

        return importlib.import_module("mobiledets_tf.api")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
