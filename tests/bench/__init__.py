"""`make bench`: what the design sets as limits, measured on real servers in one run.

Rates depend on the machine, so none is asserted: each stands beside what a bare loop does there.
"""
