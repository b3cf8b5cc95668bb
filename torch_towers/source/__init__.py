"""A checkpoint as readable PyTorch source."""
