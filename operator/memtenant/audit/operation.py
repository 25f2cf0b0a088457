"""What an event says was done. Numbers are for ever: a sealed log is read for years."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Failure", "Operation"]


class Operation(IntEnum):
    """One byte of an event; the high four bits are what it was done to."""

    APPEND = 0x01
    UPDATE = 0x02
    POP = 0x03
    REMOVE = 0x04
    CLEAR = 0x05
    DELETE = 0x06
    READ = 0x07
    SUMMARISE = 0x08
    READ_SUMMARIES = 0x09
    LIST = 0x0A

    CONTEXT_CREATE = 0x11
    CONTEXT_UPDATE = 0x12
    CONTEXT_DELETE = 0x13
    CONTEXT_READ = 0x14
    CONTEXT_CHANGES = 0x15

    CHECKPOINT_WRITE = 0x21
    CHECKPOINT_READ = 0x22
    CHECKPOINT_DELETE = 0x23

    EXPORT = 0x31
    FORGET = 0x32

    DECRYPTION_FAILED = 0x41

    PROVISIONED = 0x51
    DEPROVISIONED = 0x52
    CREDENTIALS_ROTATED = 0x53
    KEY_MADE = 0x54
    KEY_DESTROYED = 0x55
    ACCESS_CHANGED = 0x56
    HOLD_SET = 0x57
    HOLD_RELEASED = 0x58
    OVERRIDE = 0x59
    EXPIRED = 0x5A
    PURGED = 0x5B
    SPEC_SEEN = 0x5C
    REPORT = 0x5D
    AUDIT_STARTED = 0x5E
    AUDIT_STOPPED = 0x5F

    LOG_READ = 0x61
    NOT_DRAINED = 0x62
    EVENTS_DROPPED = 0x63


class Failure(IntEnum):
    """Why something did not open: the detail of `Operation.DECRYPTION_FAILED`."""

    MALFORMED = 1
    PLAINTEXT = 2
    OTHER_KEY = 3
    TAMPERED = 4
    REPLAYED = 5
    REORDERED = 6
    MISSING = 7
    KEY_UNAVAILABLE = 8
