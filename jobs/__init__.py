"""The door between api and workers: the job record, its store, its event feed, and the way into the queue."""
