"""What the operator and the SDK agree on: identity, names of keys and users, periods, bindings."""
