"""Source: a checkpoint as the PyTorch file that one would have written by hand."""
