"""What `bench/peers.py` runs as programs: weights to and fro without training, by ours, Flower and a bare stream."""
