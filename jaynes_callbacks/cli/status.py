"""What a command ends with."""

__all__ = ["DONE", "FAILED", "INTERRUPTED", "WRONG_USAGE", "UsageError"]

#: Exit statuses; the one of an interrupt is the shells' own (128 + SIGINT).
DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """Arguments that cannot be followed: one sentence on what was expected, and what came."""
