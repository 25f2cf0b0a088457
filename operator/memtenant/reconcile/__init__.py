"""One idempotent reconcile per kind: read what is, decide by rules, apply the difference."""
