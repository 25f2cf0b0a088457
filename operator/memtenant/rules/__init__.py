"""Pure rules: from declared objects and observed state to what should be, and the way there."""
