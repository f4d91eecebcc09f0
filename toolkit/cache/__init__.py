"""Embeddings by the content of their images, in HDF5 segments that are written once."""
