"""The waste pipeline: an image or a question in, disposal steps out. Knows no queue and no HTTP server."""
