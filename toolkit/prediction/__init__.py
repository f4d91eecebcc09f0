"""Heads that were kept, and what they say of other images."""
