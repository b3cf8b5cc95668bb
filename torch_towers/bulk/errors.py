"""The error of a bulk job."""

from torch_towers.errors import TorchTowersError


class BulkError(TorchTowersError):
    """A job cannot start, go on or be resumed; a row that stopped it is named by its number."""
