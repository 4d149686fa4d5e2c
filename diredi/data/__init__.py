"""Data sets in Ultralytics' YOLO format, the built-in camera scenes, and archives of both. No torch."""
