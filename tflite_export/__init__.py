"""From a checkpoint to a verified .tflite file, and from a file to a device's verdict."""
