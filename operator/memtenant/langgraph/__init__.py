"""LangGraph's threads in a tenant's memory: ``from memtenant.langgraph import Saver``.

Needs ``pip install memtenant[langgraph]``.
"""

from memtenant.langgraph.saver import Saver

__all__ = ["Saver"]
