"""Compliance reports: evidence, checks, and the files that come of them."""
