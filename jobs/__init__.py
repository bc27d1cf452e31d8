"""Shared by API and workers: the job record, its ledger, its event feed, and the way into the queue."""
