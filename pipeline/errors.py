"""The exceptions, by whose fault it is; every stage raises these and the command line prints them as one sentence.

    TidecastError
    ├── SettingsError    the settings, the flags or the environment ask for something impossible
    ├── DataError        the input cannot be used: a missing file, a missing column, too little history
    ├── StoreError       the lake or the state folder is damaged, locked or fenced off
    │   └── LeaseLostError   another process has taken over what this one was doing
    └── ModelError       a model that cannot be built, loaded or trusted
        └── CausalityError   a forecaster that would read the future

A message reads "<who> requires <what>; got <value>. <what to do>." with counts and the first few offenders.
"""


class TidecastError(Exception):
    """Any error that a user can mend; the command line prints its message and exits with 1."""


class SettingsError(TidecastError):
    """Settings, flags or environment variables that contradict each other or do not exist."""


class DataError(TidecastError):
    """Input that cannot be read or is too little for what was asked."""


class StoreError(TidecastError):
    """A lake or state folder that is damaged, missing or held by somebody else."""


class LeaseLostError(StoreError):
    """A process that was paused for so long that another one has taken over: it must not write any more."""


class ModelError(TidecastError):
    """A model that cannot be built, loaded or registered."""


class CausalityError(ModelError):
    """A forecaster that would let the future reach the past."""


def first_line(error: BaseException) -> str:
    """Return what another library's exception says, on one line; its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
