"""Embeddings by the SHA-256 of their images, in HDF5 segments that are written once."""
