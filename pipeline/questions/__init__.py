"""Questions in words, read without a model."""
