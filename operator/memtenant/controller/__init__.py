"""The process: kopf brings events, a queue orders them, workers reconcile, one Lease leads."""
