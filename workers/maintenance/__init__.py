"""What keeps the fleet in order: repairs, heartbeats, background work."""
