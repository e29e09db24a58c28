"""Image and box data: COCO JSON and its checks, TFRecords, the built-in sample set and COCO metrics."""
