"""Declared objects and Secrets: one port, and its adapters for an API server and for a folder."""
