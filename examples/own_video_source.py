"""A video source of your own: a class with `read` and `close`, and one line in SOURCES of the edge node."""

import numpy as np
from world import FOLDER, models

import diredi
from edge_node.sources import SOURCES, Frame, SourceOptions, open_source


class MovingSquare:
    """A white square that moves over a grey picture; a real one would ask a camera's own library for frames."""

    live = False  # it waits for its reader; a real camera goes on by itself

    def __init__(self, frames: int) -> None:
        self._left = frames

    def read(self) -> Frame | None:
        if self._left == 0:
            return None
        self._left -= 1
        frame = np.full((120, 160, 3), 90, np.uint8)
        frame[40:80, 4 * self._left : 4 * self._left + 40] = 255
        return Frame(frame)

    def close(self) -> None:
        print("the source is closed")


def open_square(place: str, options: SourceOptions) -> MovingSquare:
    """Open "square:NUMBER", NUMBER frames long."""
    return MovingSquare(int(place))


SOURCES["square"] = open_square

_, student = models()
diredi.export(student, FOLDER / "student.onnx")
camera = diredi.OnnxPredictor(FOLDER / "student.onnx", threads=1)
source = open_source("square:5", SourceOptions(cache=FOLDER))
while (frame := source.read()) is not None:
    [found] = camera.predict([frame.image], confidence=0.05)
    print(f"{len(found)} boxes, best {found.scores[:1].round(2).tolist()}")
source.close()
