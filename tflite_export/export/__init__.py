"""Exports a checkpoint: converts, quantises, evaluates and describes a .tflite file."""
