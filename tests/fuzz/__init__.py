"""Fuzzing: whatever the bytes of a file, the answer is right, or one sentence, soon and without much memory.

Each `test_*.py` is one kind of file: `seeds()`, good files; `attempt(data)`, what a user does with such a file; and, where bytes alone
would not get past a checksum or a parser, `mutated(data, random)`. `harness.py` runs them.
"""
