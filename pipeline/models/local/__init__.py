"""The local models: no network and no key."""
