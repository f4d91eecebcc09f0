"""Encoders x heads x test sets: predictions, their metrics, and audits of the data."""
