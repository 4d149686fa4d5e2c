"""Stubs of the contract in `proto/diredi/v1`, made by `python proto/generate.py`; do not edit by hand."""
