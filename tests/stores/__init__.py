"""Store administration against real servers."""
