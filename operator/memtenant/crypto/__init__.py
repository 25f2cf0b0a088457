"""Keys, the record format and the keyed names: what protects the data in Redis.

Pure: nothing here knows a server. docs/record-format.md has the bytes and test vectors.
"""
