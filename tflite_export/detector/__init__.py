"""Runs a detector on images, videos and cameras, and scores its detections."""

from tflite_export.detector.detector import Detector

__all__ = ["Detector"]
