"""Show text from files without letting it control the terminal; the command imports it at once."""

import re

__all__ = ["printable"]

#: Control characters, those that turn the direction of writing or end a line, and half surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Replace characters that would control a terminal, or end the line, by escapes.

    Every text from a file goes through here before it is shown.

    >>> printable("fc" + chr(27) + "[2Jweight")
    'fc\\x1b[2Jweight'
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
