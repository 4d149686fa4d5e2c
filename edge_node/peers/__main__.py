"""`python -m edge_node.peers`: configuration in, exit code out."""

from __future__ import annotations

import sys

from diredi.service import run
from edge_node.peers.config import PeerConfig
from edge_node.peers.run import serve

if __name__ == "__main__":
    sys.exit(run("edge_node.peers", PeerConfig.from_command_line, serve))
