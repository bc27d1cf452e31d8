"""Runs jobs: claim, run, retry, complete."""
