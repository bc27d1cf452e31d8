"""Redis: connection, keys and scripts."""
