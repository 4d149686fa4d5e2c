"""Tests in containers, which share a deployment. A package, so that it ends with the last of them, not with the run."""
