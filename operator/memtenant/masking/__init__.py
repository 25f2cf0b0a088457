"""Finding personal data, cards and credentials in text, and what is put in their place.

Pure and linear: a detector reads a text once, and looks at a bounded number of characters around
each place where a value may begin. What an agent's users write is hostile input.
"""
