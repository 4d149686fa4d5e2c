"""The edge node: it detects objects in frames of a source, and changes releases between two frames."""

import os

# A small PNG can claim to be gigabytes of pixels; OpenCV reads this limit once, when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
