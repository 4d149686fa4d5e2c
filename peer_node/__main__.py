"""Runs a peer: `python -m peer_node --config FILE`."""

from __future__ import annotations

import sys

from diredi.process import run
from peer_node.config import PeerConfig
from peer_node.node import serve

if __name__ == "__main__":
    sys.exit(run("peer_node", PeerConfig.from_command_line, serve))
