"""The whole system on one machine, for `bunri up` and `bunri demo`."""
