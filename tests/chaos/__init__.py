"""Chaos: everything is broken at random while agents and people work; then all must be whole.

    python -m tests.chaos --seed 7 --minutes 2

A seed makes a schedule of faults (`schedule`), `faults` are what they do, `world` is what they are
done to: two operators, a sealer, an API server, a store with a replica, agents (`agents`) and
people (`people`). Then everything is healed, and `checks` looks for what must hold.
"""
