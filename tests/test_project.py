"""What holds the project's files together: versions, the lock, the exclusions, privacy, and the page of settings."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline.settings import MetricSettings, Route, Settings

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS["kafka"], *EXTRAS["stats"], *EXTRAS["dev"]]]
LOCKS = ["requirements.lock", "docker/servers.lock"]
REPEATED_LINES = 12
PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def locked(path: str = "requirements.lock") -> dict[str, Version]:
    """Return the version that a lock pins for each package."""
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / path).read_text(), flags=re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in pins}


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter with nothing in its environment but this and PATH; return what it printed."""
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run([sys.executable, "-c", code], env=clean, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def knobs(tree: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each leaf of a settings tree with its dotted name."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from knobs(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def defaults() -> Iterator[tuple[str, object]]:
    """Yield each knob and its default, whatever the environment says."""
    yield from knobs(Settings.model_construct().model_dump(mode="json"))


def test_every_package_is_installed():
    """Shown to fail by leaving out `pipeline.doctor`: from the sources everything works, and the installed doctor is not there."""
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("flows", "models", "pipeline")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(found)


def test_the_changelog_opens_with_the_version_of_the_project():
    versions = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert versions[0] == PROJECT["version"]


def test_the_images_of_ours_carry_the_version_of_the_project():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    tags = {service["image"].rpartition(":")[2] for service in services.values() if "build" in service}
    assert tags == {PROJECT["version"]}


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_the_lock_covers_every_direct_dependency_but_torch(requirement):
    pins = {**locked(), "torch": Version("2.13.0")}  # torch has a line of its own in the Makefile: its builds have different hashes
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_the_lock_leaves_out_torch_and_what_only_cuda_needs():
    assert [name for name in locked() if name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-"))] == []


def test_torch_is_pinned_alike_wherever_it_is_named():
    pin = next(str(requirement.specifier) for requirement in DIRECT if requirement.name == "torch")
    assert f'version = "{pin.removeprefix("==")}"' in (ROOT / ".ci/lock.toml").read_text()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_host_or_path(lock):
    assert (
        re.findall(r"://|file:|--index|--find-links|--extra|--trusted|(?<!-c )\.\.?/|/(?:tmp|home|opt|root)/", (ROOT / lock).read_text())
        == []
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock):
    blocks = re.split(r"^(?=[\w.-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_the_servers_run_what_the_flows_were_tested_with():
    servers, flows = locked("docker/servers.lock"), locked()
    assert {name: version for name, version in servers.items() if version != flows.get(name)}.keys() == {"psycopg2-binary"}


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_compromised_releases_of_lightning_are_excluded(version):
    lightning = next(requirement for requirement in DIRECT if requirement.name == "lightning")
    assert f"!={version}" in str(lightning.specifier)
    assert not lightning.specifier.contains(version)


def test_the_server_of_prefect_imports_with_the_fastapi_that_is_installed():
    """Newer FastAPI refuses `Body(min_items=…)`, and then no flow runs at all.

    Shown to fail with fastapi 0.165.0, which the metadata of prefect 3.8.8 allows.
    """
    assert python("from prefect.server.api.server import create_app; print(callable(create_app))") == "True"


def test_nothing_phones_home_unless_the_user_says_so():
    """Shown to fail by leaving out `hush()` in flows/__init__.py."""
    code = "import flows, os; print(*(os.environ[name] for name in %r))"
    names = ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY")
    assert python(code % (names,)) == "true false true"
    assert python(code % (names,), PREFECT_SERVER_ANALYTICS_ENABLED="true") == "true true true"


def test_every_task_is_listed_by_make_help():
    makefile = (ROOT / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    listed = subprocess.run(["make", "-C", ROOT, "help"], check=True, capture_output=True, text=True).stdout
    assert re.findall(r"^  make (\w+)", listed, flags=re.MULTILINE) == phony


def test_every_knob_is_on_the_page_of_settings_with_its_default():
    page = (ROOT / "docs/settings.md").read_text()
    assert [name for name, default in defaults() if f"| `{name}` | `{json.dumps(default)}` |" not in page] == []


def test_the_page_of_settings_names_no_knob_that_is_gone():
    rows = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs/settings.md").read_text(), flags=re.MULTILINE)
    known = [name for name, _ in defaults()]
    assert sorted(rows) == sorted([*known, *MetricSettings.model_fields, *Route.model_fields])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_holds_a_placeholder(page):
    """Shown to fail by a line RESULTS_TABLE in README.md; what is shown as code may say so."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^[A-Z_]{4,}[ \t]*$", prose, flags=re.MULTILINE) == []


def test_no_block_is_written_twice():
    """A run of lines that says something, found in two places, wants a name; imports and bare brackets do not count."""
    windows: Counter[tuple[str, ...]] = Counter()
    for path in (path for package in ("models", "pipeline", "flows") for path in (ROOT / package).rglob("*.py")):
        lines = [line.strip() for line in path.read_text().splitlines()]
        said = [line for line in lines if re.search(r"\w", line) and not line.startswith(("import ", "from ", "#"))]
        windows.update(tuple(said[start : start + REPEATED_LINES]) for start in range(len(said) - REPEATED_LINES + 1))
    assert [window[0] for window, count in windows.items() if count > 1] == []
