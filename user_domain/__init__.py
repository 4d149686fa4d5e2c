"""The site's service: it holds the private data set, computes knowledge gaps, and lets nothing else leave."""

import os

# A small PNG can claim to be gigabytes of pixels; OpenCV reads this limit once, when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))
