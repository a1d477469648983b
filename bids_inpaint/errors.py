"""What is wrong with the input of a user, in one sentence, and the text that such sentences are made of."""

from __future__ import annotations


class WorkerKilled(RuntimeError):
    """A process that worked on a step was killed from outside."""


class FilterFailed(RuntimeError):
    """A filter of ANTs ended with an error."""


class InputError(ValueError):
    """Input that can't be used.

    Parameters
    ----------
    message : str
        One sentence for the user: file, reason, remedy.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def first_line(error: Exception, longest: int = 160) -> str:
    """What an error says, short enough to stand in a sentence; its type if it says nothing.

    Examples
    --------
    >>> first_line(ValueError("no such table\\n[SQL: …]")), first_line(KeyError())
    ('no such table', 'KeyError')
    """
    return (str(error).splitlines() or [""])[0][:longest] or type(error).__name__


def unreadable(error: OSError) -> str:
    """That a file can't be read and why, as the end of a sentence.

    Examples
    --------
    >>> unreadable(PermissionError(13, "Permission denied", "/x"))
    "can't be read (Permission denied): check the path and its permissions."
    """
    return f"can't be read ({error.strerror or error}): check the path and its permissions."


def printable(text: str) -> str:
    """Escape what a terminal would not print: names of files hold anything.

    Examples
    --------
    >>> printable("sub-" + chr(27) + "[2J") == r"sub-\\x1b[2J"
    True
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_utf8(name: str) -> bool:
    r"""Whether the name of a file is UTF-8: on Linux it is any bytes, and most libraries can't take others.

    Examples
    --------
    >>> import os
    >>> is_utf8("Müller"), is_utf8(os.fsdecode(b"M\xfcller"))
    (True, False)
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
