"""Padding: whether what stands behind the end of a row changes an output, and an encoder that takes rows cut at their ends."""
