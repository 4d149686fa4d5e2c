"""Decentralised learning: peers teach each other while their data stays with them.

The package also has the federated strategies that such peers are compared with, on the same partitions of the same
data.
"""
