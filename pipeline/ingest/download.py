"""Fetch known public data sets by URL, each checked against its SHA-256: what `tidecast data get` does.

A file is either there, whole and verified, or not there at all. `data/README.md` lists the sets with their licences.
"""

import contextlib
import hashlib
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from types import MappingProxyType
from typing import IO
from uuid import uuid4

from pipeline.errors import DataError

CHUNK_BYTES = 1 << 16
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # what a server says when it may well answer a moment later

Progress = Callable[[int, int], None]
"""Called with the bytes so far and the bytes in all."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A public data set: where it is, what it must be, and how to ingest it.

    Attributes:
        name: what `tidecast data get` calls it.
        url: http or https.
        sha256: of the whole file, in hex.
        num_bytes: size of the whole file.
        file_name: as it is kept here.
        licence: under which it is published.
        source: who publishes it.
        about: what it holds, and its sampling.
        ingest: the flags of `tidecast ingest FILE`.
    """

    name: str
    url: str
    sha256: str
    num_bytes: int
    file_name: str
    licence: str
    source: str
    about: str
    ingest: str


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download waits and how often it tries; the pause doubles after each try."""

    attempts: int = 3
    timeout: timedelta = timedelta(seconds=30)
    pause: timedelta = timedelta(seconds=1)


def _nab(name: str, path: str, sha256: str, num_bytes: int, about: str) -> Dataset:
    return Dataset(
        name=name,
        url=f"https://raw.githubusercontent.com/numenta/NAB/master/data/{path}",
        sha256=sha256,
        num_bytes=num_bytes,
        file_name=Path(path).name,
        licence="MIT",
        source="Numenta Anomaly Benchmark, https://github.com/numenta/NAB",
        about=about,
        ingest="--time-zone UTC",
    )


DATASETS: tuple[Dataset, ...] = (
    Dataset(
        name="etth1",
        url="https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
        sha256="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        num_bytes=2_589_657,
        file_name="ETTh1.csv",
        licence="CC BY-ND 4.0",
        source="Zhou et al., Informer (AAAI 2021), https://github.com/zhouhaoyi/ETDataset",
        about="an electricity transformer: six loads and the oil temperature, hourly, July 2016 to June 2018",
        ingest="--time-zone UTC",
    ),
    Dataset(
        name="beijing-pm25",
        url="https://raw.githubusercontent.com/jbrownlee/Datasets/master/pollution.csv",
        sha256="892e9559205d16d32623135c127a3951c12e46ea1e0b3093e107ce89a9fd60e2",
        num_bytes=2_010_492,
        file_name="beijing_pm25.csv",
        licence="CC BY 4.0",
        source="Song Chen, UCI Machine Learning Repository, https://doi.org/10.24432/C5JS49 (copy: github.com/jbrownlee/Datasets)",
        about="PM2.5 at the US embassy in Beijing, with the weather, hourly, 2010 to 2014; gaps of hours to days",
        ingest="--time-zone Asia/Shanghai",
    ),
    _nab(
        "nab-machine-temperature",
        "realKnownCause/machine_temperature_system_failure.csv",
        "92bf5b87fc7f9bba8ca0b7ec63ccaac8cb4a1371a258e8c29a10ae9c018d82a4",
        732_223,
        "the temperature of an industrial machine, every 5 minutes, December 2013 to February 2014; failures, repeated and missing stamps",
    ),
    _nab(
        "nab-nyc-taxi",
        "realKnownCause/nyc_taxi.csv",
        "d8fa6f7f0734bf5c8be12c52a94e20a82664c397d9dec4449156bd453d32856d",
        265_771,
        "taxi passengers in New York, every 30 minutes, July 2014 to January 2015; holidays and a storm",
    ),
    _nab(
        "nab-ec2-cpu",
        "realAWSCloudwatch/ec2_cpu_utilization_5f5533.csv",
        "01613e6f632d067f11a5dfd40a188b0789752b388d9bc77a398bd06333878a76",
        119_229,
        "the CPU load of a server in percent, every 5 minutes, February 2014; level shifts and spikes",
    ),
    _nab(
        "nab-occupancy",
        "realTraffic/occupancy_6005.csv",
        "cd357d7820d675074270fd976d4af1fc1e7854ecb764783028cbcb18d980c91d",
        59_122,
        "how long vehicles cover a road sensor, in percent, about every 5 minutes, September 2015; irregular stamps and gaps",
    ),
)

CATALOGUE: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in DATASETS})


def get(
    name: str,
    folder: Path,
    *,
    catalogue: Mapping[str, Dataset] = CATALOGUE,
    progress: Progress | None = None,
    patience: Patience = Patience(),
) -> Path:
    """Fetch a data set into a folder, unless it is there already.

    Args:
        name: a key of the catalogue.
        folder: made where missing.
        catalogue: the data sets that are known.
        progress: told how far the download is.
        patience: how long to wait and how often to try.

    Returns:
        The path of the verified file.

    Raises:
        DataError: if the name is not known, the file cannot be fetched, or it is not the file that the catalogue names; a file that was
            there before is then untouched.
    """
    if name not in catalogue:
        raise DataError(f"tidecast data get requires one of {', '.join(catalogue)}; got {name!r}. Correct the name.")
    dataset = catalogue[name]
    if urllib.parse.urlsplit(dataset.url).scheme not in ("http", "https"):
        raise DataError(f"{name} requires an http or https URL; got {dataset.url}. Correct the catalogue.")
    target = folder / dataset.file_name
    if target.is_file() and target.stat().st_size == dataset.num_bytes and _sha256(target) == dataset.sha256:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _beside(target) as (part, sink):
            _fetch(dataset, sink, progress or _ignore, patience)
            _sync(sink)
            part.replace(target)
    except OSError as error:
        raise DataError(f"{name} requires a folder that can be written; got {folder} ({error}). Choose another or make room.") from error
    return target


def _ignore(done: int, total: int) -> None:
    """Report nothing."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open a temporary file in the target's folder; whatever is still there afterwards is removed."""
    part = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        with part.open("xb") as sink:
            yield part, sink
    finally:
        part.unlink(missing_ok=True)


def _sync(sink: IO[bytes]) -> None:
    sink.flush()
    os.fsync(sink.fileno())


def _fetch(dataset: Dataset, sink: IO[bytes], progress: Progress, patience: Patience) -> None:
    """Fill `sink` with the data set, trying again where that may help.

    Raises:
        DataError: after the last try, or at once where another would not help.
    """
    pause = patience.pause
    for attempt in range(1, patience.attempts + 1):
        sink.seek(0)
        sink.truncate()
        trouble = _try_once(dataset, sink, progress, patience.timeout)
        if trouble is None:
            return
        if attempt < patience.attempts:
            time.sleep(pause.total_seconds())
            pause *= 2
    raise DataError(
        f"{dataset.name} requires {dataset.url} to answer in full; got {trouble} in {patience.attempts} tries. "
        f"Check the connection, or fetch the file by hand into the folder as {dataset.file_name}."
    )


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https, through the proxy of the environment, and is led by no redirect to anything else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _try_once(dataset: Dataset, sink: IO[bytes], progress: Progress, timeout: timedelta) -> str | None:
    """Stream the URL into `sink` and check it.

    Returns:
        What went wrong, if another try may mend it.

    Raises:
        DataError: if the server refuses, or sends another file.
    """
    try:
        with _opener().open(dataset.url, timeout=timeout.total_seconds()) as response:
            return _receive(dataset, response, sink, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in TRY_AGAIN:
            return f"HTTP status {error.code}"
        raise DataError(
            f"{dataset.name} requires {dataset.url} to be there; got HTTP status {error.code} ({error.reason}). The set may have moved."
        ) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        return f"{type(error).__name__}: {error}"


def _receive(dataset: Dataset, response: HTTPResponse, sink: IO[bytes], progress: Progress) -> str | None:
    """Copy the body into `sink`; as `_try_once`."""
    digest, done = hashlib.sha256(), 0
    while chunk := response.read(CHUNK_BYTES):
        sink.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if done > dataset.num_bytes:
            break  # another file, and perhaps an endless one
        progress(done, dataset.num_bytes)
    if digest.hexdigest() == dataset.sha256:
        return None
    if done < dataset.num_bytes and response.length != 0:  # the server had announced more, or nothing
        return f"{done} of {dataset.num_bytes} bytes"
    raise DataError(
        f"{dataset.name} requires the file with sha256 {dataset.sha256}; got {digest.hexdigest()} from {dataset.url}. "
        "It changed or was tampered with; nothing was kept."
    )
