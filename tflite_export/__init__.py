"""Exports a checkpoint to a verified .tflite file, and checks a file against target devices."""
