"""Webhooks: attempt what is due, sign and send it."""
