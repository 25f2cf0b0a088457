"""Real servers, a real control plane and a small kubelet, for the tests and the demos."""
