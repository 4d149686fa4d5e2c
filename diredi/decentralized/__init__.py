"""Learning without a cloud: peers that are students and teachers at once, and whose data never leaves them.

Beside them the federated methods that they are measured against, on the same partitions of the same data.
"""
