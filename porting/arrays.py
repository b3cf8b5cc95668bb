"""Arrays in `.npz` files: the runtime's own."""

from torch_towers.arrays import as_stored, as_strings, load_arrays, save_arrays, to_numpy

__all__ = ["as_stored", "as_strings", "load_arrays", "save_arrays", "to_numpy"]
