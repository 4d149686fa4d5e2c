"""The two sides of bench/simulation.py, each a program of its own that is given a folder with its task.

FOLDER/spec.json    in: network, clients, rounds, seed, cpus, learning_rate, epochs, batch
FOLDER/data.npz     in: images, labels, client (of each image), test_images, test_labels
FOLDER/found.json   out: ended (when each round was over, seconds of the clock), accuracy (0 to 1, at the end)
"""
