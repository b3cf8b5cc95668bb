"""Fuzzing: for any file, the answer is right, or one sentence, quickly and in bounded memory.

Each `test_*.py` is one kind of file: `seeds()`, valid files; `attempt(data)`, what a user does with such a file; and, if random bytes
would not pass a checksum or parser, `mutated(data, random)`. `harness.py` runs them.
"""
