"""The error of a bulk job."""

from torch_towers.errors import TorchTowersError


class BulkError(TorchTowersError):
    """A job cannot start, continue or resume; a row that stopped it is named by its number."""
