"""A .tflite file of any origin: reads, checks, changes and runs it. Needs no TensorFlow."""
