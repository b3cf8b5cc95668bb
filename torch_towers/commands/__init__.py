"""The subcommands of `torch-towers`: a file for each, with `add` for its options and `run` for what it does.

Each imports what it needs inside `run`, so that `torch-towers --help` answers without torch.
"""
