"""A real Kubernetes control plane as local processes: built once, started in seconds."""
