"""The errors that users of torch_towers meet. Each message is one sentence: what, where, why, and what to do now."""


class TorchTowersError(Exception):
    """The base of every error that this project raises on purpose."""


class CheckpointError(TorchTowersError):
    """A checkpoint folder is missing something, holds something it must not, or contradicts itself."""


class InputError(TorchTowersError, ValueError):
    """The rows given to a tower do not fit its signature, or TensorFlow's own checks would refuse them."""
