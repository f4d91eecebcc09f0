"""Images and their labels: sources, the manifest, hashing, decoding, training and test splits."""
