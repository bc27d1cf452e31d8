"""The `bunri` command: starts and watches real processes, and talks to the API as any client does."""
