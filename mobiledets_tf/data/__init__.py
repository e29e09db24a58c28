"""Images and boxes: COCO JSON, its checks, TFRecords, the built-in sample set, COCO metrics."""
