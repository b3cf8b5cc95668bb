"""Proves that padding changes no output, and builds an encoder that takes truncated rows."""
