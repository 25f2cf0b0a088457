"""Bounded, resumable steps over a whole store: measure, repair, expire."""
