"""Which code and which settings made a thing: what a model card and a tracked run are signed with.

Called by `pipeline.train` and `pipeline.tracking.registry`; reads the checkout tidecast runs from, where there is one, and nothing else.
"""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipeline.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("pipeline", "models", "flows")  # changes elsewhere in the checkout (data, docs) leave what is computed alone
PLACES = {"lake", "state", "tracking"}  # settings that say where, not what
GIT_TIMEOUT_S = 10
SECRET_PARAMETER = re.compile(r"((?:^|&)(?:password|passwd|sslpassword|token|secret)=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True)
class SourceRevision:
    """The git revision of the running code.

    Attributes:
        sha: of the commit; None outside a checkout (an installed wheel, a container).
        dirty: whether the packages differ from that commit; None where `sha` is.
    """

    sha: str | None
    dirty: bool | None


def source_revision(checkout: Path = CHECKOUT) -> SourceRevision:
    """Return the revision of the checkout that holds our packages.

    A tidecast that is installed below somebody else's repository is not versioned by it: that revision is not reported.

    Args:
        checkout: the folder that holds the packages.
    """
    if _git(checkout, "ls-files", "--error-unmatch", "pipeline/__init__.py") is None:
        return SourceRevision(None, None)
    sha = _git(checkout, "rev-parse", "--verify", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--", *CODE)
    return SourceRevision(sha, None if sha is None or changes is None else bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output, or None where there is no git, no repository or no such file."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 (no shell; the arguments are ours)
            [git, "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def tidecast_version() -> str:
    """Return the version of the installed distribution."""
    return version("tidecast")


def without_password(uri: str) -> str:
    """Return a URI with its password masked, fit to be shown and stored.

    >>> without_password("postgresql://mlflow:secret@db:5432/mlflow")
    'postgresql://mlflow:***@db:5432/mlflow'
    >>> without_password("postgresql://db/mlflow?user=mlflow&password=secret&sslmode=require")
    'postgresql://db/mlflow?user=mlflow&password=***&sslmode=require'
    """
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    query = SECRET_PARAMETER.sub(r"\1***", parts.query)
    if at and ":" in user:
        return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}", query=query))
    return uri if query == parts.query else urlunsplit(parts._replace(query=query))


def recorded_settings(settings: Settings) -> dict[str, object]:
    """Return the settings as JSON, passwords masked."""
    record: dict[str, object] = settings.model_dump(mode="json")
    uri = settings.tracking.uri
    if uri is not None:
        record["tracking"] = {**settings.tracking.model_dump(mode="json"), "uri": without_password(uri)}
    return record


def settings_hash(settings: Settings) -> str:
    """Return a hash of all settings that decide what is computed; where the lake is does not count."""
    return fingerprint(settings.model_dump(mode="json", exclude=PLACES))


def fingerprint(value: object) -> str:
    """Return the SHA-256, in hexadecimal, of a JSON value; the order of keys does not count.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def flattened(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return a tree of settings as one level of dotted names and short texts, as tracking servers want them.

    >>> flattened({"train": {"seed": 0, "seasons": [24, 168]}, "state": None})
    {'train.seed': '0', 'train.seasons': '[24, 168]', 'state': 'null'}
    """
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
