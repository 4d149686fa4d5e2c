"""The device: reads a source, finds objects with the release it has, and changes releases between two frames."""
