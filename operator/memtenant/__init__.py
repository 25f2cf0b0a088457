"""memtenant: isolated, encrypted, quota-bound, auditable memory for AI agents."""
