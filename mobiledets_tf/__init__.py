"""MobileDets in TensorFlow/Keras: search, training and int8 export of object detectors for devices.

Importing the package is cheap: only the modules that need TensorFlow load it, and they do so through
`mobiledets_tf.compat`.
"""

from mobiledets_tf.version import __version__

__all__ = ["__version__"]
