"""Object detection: detections of tiles, decoded and merged."""
