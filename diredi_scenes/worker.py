"""`python -m diredi_scenes.worker FOLDER SITE SEED SIZE WORKERS SPLIT=COUNT... WHICH`: render every n-th image.

It writes a line for each image to standard output, and stops when nobody reads them any more.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import cv2

from diredi.errors import NoRoom
from diredi_scenes.write import write_images


def main(arguments: list[str]) -> int:
    """Render the images; return the exit code, that of NoRoom if the disk is full."""
    folder, site, seed, size, workers, *splits, which = arguments
    cv2.setNumThreads(1)
    try:
        for split, count in (pair.split("=") for pair in splits):
            for number in range(int(which), int(count), int(workers)):
                write_images(Path(folder), site, split, range(number, number + 1), int(seed), int(size))
                sys.stdout.write(".\n")
                sys.stdout.flush()
    except BrokenPipeError:
        return 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoRoom.exit_code
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
