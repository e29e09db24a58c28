"""Reads, checks, changes and runs .tflite files of any origin, without TensorFlow."""
