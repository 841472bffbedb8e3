"""Text that came from devices, in a form that is safe to show. Imports nothing, so that errors are shown at once.

Called by all that writes to a terminal.
"""


def printable(text: str) -> str:
    """Return a text with all that a terminal might obey or hide written out: controls, and marks that turn or blank text."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else _written_out(letter) for letter in text)


def printable_lines(text: str) -> str:
    r"""Return a text of ours that may have lines, and texts of others in them.

    >>> printable_lines("one\ntwo \x1b[31m")
    'one\ntwo \\x1b[31m'
    """
    return "\n".join(map(printable, text.split("\n")))


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
