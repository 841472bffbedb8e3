"""The format that tables and SQLite files are written in, named by the first tidecast that wrote it so.

A table names it in its description, a SQLite file in its `user_version`; what names none is of 0.1.0. An older tidecast refuses a later
format and says which version to use. SQLite does not check the number, and one flipped bit turns 0.1.0 into 0.1.1; therefore a file says
it twice, the second time as a seal, its `application_id`. Called by `lake.py` and `state_files.py`.
"""

import re
import zlib
from importlib.metadata import version

from pipeline.errors import FormatError

FORMATS = ("0.1.0",)  # all there were; add the coming release with any change that an older tidecast must not work on
FORMAT = FORMATS[-1]
DESCRIPTION = f"tidecast {FORMAT}"  # Delta's kernel refuses table properties of our own
_BITS = 0xFFFF_FFFF  # SQLite returns the numbers in a file's header with a sign
COUNTED = range(5)  # 0: a file that names none; 1 to 4: the catalog's, before formats were called after releases
_DESCRIBED = re.compile(r"tidecast (\d+)\.(\d+)\.(\d+)")


def number_of(release: str) -> int:
    """Return a release as a number that rises with it.

    >>> number_of("0.12.3")
    12003
    """
    major, minor, patch = map(int, release.split("."))
    return major * 1_000_000 + minor * 1_000 + patch


KNOWN = frozenset(COUNTED) | {number_of(release) for release in FORMATS}


def seal_of(number: int) -> int:
    """Return the seal of a format's number: its CRC, in the 31 bits that the pragma takes.

    >>> seal_of(number_of("0.1.0"))
    616097429
    """
    return zlib.crc32((number & _BITS).to_bytes(4)) & 0x7FFF_FFFF


def written_number(number: int, seal: int) -> int | None:
    """Return the number of the format that a SQLite file was written in; None where nothing tells it.

    Every release after 0.1.0 writes a seal. So a file without a seal that has an unknown number is damaged, not newer.

    Args:
        number: the format's number in the file, 32 bits with a sign.
        seal: the seal in the file; 0 if it was never sealed.

    >>> written_number(1001, seal_of(1000)), written_number(1001, seal_of(1001)), written_number(1000, 0), written_number(1001, 0)
    (1000, 1001, 1000, None)
    """
    if number == 0:  # a process has sealed it and is about to name its format, or died
        return 0
    one_bit_off = ((number & _BITS) ^ (1 << bit) for bit in range(32))
    for candidate in (number, *KNOWN, *one_bit_off):
        if seal_of(candidate) == seal:
            return candidate
    is_seal_damaged = ((seal & _BITS) ^ seal_of(number)).bit_count() == 1
    return number if number in KNOWN or is_seal_damaged else None


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
        what: the table or file, as the subject of a sentence.
        number: the format's number.

    Raises:
        FormatError: naming the release that knows it.
    """
    if number > number_of(FORMAT):
        release = f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
        raise FormatError(
            f"{what} requires tidecast {release} or later, in whose format it is; got tidecast {version('tidecast')}. "
            "Install that version: this one has changed nothing."
        )
