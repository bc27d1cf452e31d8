"""The `bunri` command: starts and supervises real processes, and calls the API with the public client."""
