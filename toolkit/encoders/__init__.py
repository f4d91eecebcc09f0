"""Encoders of images: CLIP models, the blocks of their image towers, and features that need no model."""
