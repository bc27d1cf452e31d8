"""The job store, by audience: see `ledger.py`."""
