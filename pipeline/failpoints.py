"""Named points at which a test ends the process, as a power failure would."""


def failpoint(name: str) -> None:
    """End the process here, where `TIDECAST_FAILPOINT=name:n` asks for it; else do nothing."""
    import os

    asked, _, passes = os.environ.get("TIDECAST_FAILPOINT", "").partition(":")
    if asked != name:
        return
    _PASSED[name] = _PASSED.get(name, 0) + 1
    if _PASSED[name] >= int(passes or 1):
        os._exit(137)


_PASSED: dict[str, int] = {}
