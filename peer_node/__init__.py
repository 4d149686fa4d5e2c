"""The peer: it learns from private data of its own and from its neighbours' updates. There is no cloud."""
