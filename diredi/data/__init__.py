"""Data sets in Ultralytics' YOLO format, references to built-in scenes, archives, and classification sets. No torch."""
