"""`bunri scan` and `bunri demo`: photos through a running API, and what came of them."""
