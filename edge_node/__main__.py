"""Runs an edge node: `python -m edge_node`."""

from __future__ import annotations

import sys

from diredi.process import run
from edge_node.config import EdgeConfig
from edge_node.node import serve

if __name__ == "__main__":
    sys.exit(run("edge_node", EdgeConfig.from_command_line, serve))
