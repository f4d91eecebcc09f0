"""Atomic files, records with checksums, damaged files, and processes that share work."""
