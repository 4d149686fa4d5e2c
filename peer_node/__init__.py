"""A peer: learns from private data of its own and from what its neighbours say of public samples. There is no cloud."""
