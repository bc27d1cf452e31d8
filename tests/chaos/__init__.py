"""The chaos suite: real processes, one fault at a chosen moment, and an oracle. `python -m tests.chaos --help`."""
