"""MobileDets in TensorFlow/Keras: search, training and int8 export of object detectors for devices.

Importing the package is cheap: TensorFlow is loaded by the modules that need it, through
`mobiledets_tf.compat`.
"""

from mobiledets_tf.version import __version__

__all__ = ["__version__"]
