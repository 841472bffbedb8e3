"""The format that tables and SQLite files are written in, named by the first tidecast that wrote it so.

A table says it in its description, a SQLite file as its `user_version`. An older tidecast that meets a later format refuses, and can say
which version to use; what names none is of 0.1.0. Called by whoever opens one: `lake.py` and `state_files.py`.
"""

import re
from importlib.metadata import version

from pipeline.errors import FormatError

FORMAT = "0.1.0"  # raise it to the coming release with any change that an older tidecast must not work on
DESCRIPTION = f"tidecast {FORMAT}"  # Delta's kernel refuses table properties of our own
_DESCRIBED = re.compile(r"tidecast (\d+)\.(\d+)\.(\d+)")


def number_of(release: str) -> int:
    """Return a release as a number that rises with it.

    >>> number_of("0.12.3")
    12003
    """
    major, minor, patch = map(int, release.split("."))
    return major * 1_000_000 + minor * 1_000 + patch


def described(text: str | None) -> int:
    """Return the format that a table's description names; 0 where it names none.

    >>> described("tidecast 0.12.3"), described(None)
    (12003, 0)
    """
    found = _DESCRIBED.fullmatch(text or "")
    return 0 if found is None else number_of(".".join(found.groups()))


def require_known(what: str, number: int) -> None:
    """Refuse a format that only a later tidecast knows.

    Args:
        what: is written in it, as the subject of a sentence.
        number: of the format.

    Raises:
        FormatError: naming the release that knows it.
    """
    if number > number_of(FORMAT):
        release = f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
        raise FormatError(
            f"{what} requires tidecast {release} or later, in whose format it is; got tidecast {version('tidecast')}. "
            "Install that version: this one has changed nothing."
        )
