"""The errors of the porter. Each message is one sentence: what, where, why, and what to do now."""

from torch_towers.errors import TorchTowersError


class PortingError(TorchTowersError):
    """A SavedModel cannot be ported as asked."""


class CorruptModelError(PortingError):
    """A file of the SavedModel is damaged, contradicts itself, or is not what it claims to be."""


class DrawsError(PortingError):
    """The outputs depend on random numbers that are drawn anew at each call."""
