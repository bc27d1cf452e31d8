"""What any service could use: knows nothing of waste, jobs or routes, and imports nothing of ours."""
