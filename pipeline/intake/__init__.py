"""Intake: a link or an upload → a small, upright, clean JPEG."""
