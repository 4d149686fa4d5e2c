"""Tests of the whole, which share a demo. A package, so that it ends with the last of them, not with the run."""
