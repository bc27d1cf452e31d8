"""The event feed: what followers of a job are sent, and the text of an answer while it is written."""
