"""The arrows of docs/architecture.md, held against the imports of every module, and what the quick paths may load."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = {
    *("pipeline.errors", "pipeline.clock", "pipeline.failpoints", "pipeline.refused_knobs", "pipeline.schemas", "pipeline.settings"),
    "pipeline.stopping",
}

# Each allowed arrow, by the longest prefix of a module's name; a part may always import itself, and every part the leaves.
ARROWS = {
    "models": set(),
    "pipeline.errors": set(),
    "pipeline.clock": {"pipeline.errors"},
    "pipeline.failpoints": {"pipeline.errors"},
    "pipeline.refused_knobs": set(),
    "pipeline.schemas": set(),
    "pipeline.stopping": set(),
    "pipeline.settings": {"pipeline.errors", "pipeline.failpoints", "pipeline.refused_knobs", "models.config"},
    "pipeline.store": LEAVES,
    "pipeline.ingest": LEAVES | {"pipeline.store"},
    "pipeline.payloads": LEAVES | {"pipeline.ingest", "pipeline.store.identity"},
    "pipeline.listen": LEAVES | {"pipeline.ingest", "pipeline.payloads", "pipeline.store"},
    "pipeline.doctor": LEAVES | {"pipeline.listen.inbox", "pipeline.store"},
    "pipeline.prepare": LEAVES | {"pipeline.store", "models.batch"},
    "pipeline.tracking": LEAVES | {"models"},
    "pipeline.tracking.mlflow_model": {"pipeline.forecast.once", "pipeline.tracking.saved_model"},  # run by MLflow, imported by nobody
    "pipeline.forecast": LEAVES | {"pipeline.prepare", "pipeline.store", "pipeline.tracking", "models"},
    "pipeline.evaluate": LEAVES | {"pipeline.forecast", "pipeline.prepare", "pipeline.store", "pipeline.tracking", "models"},
    # the scores and pictures of a training are those of a backtest
    "pipeline.train": LEAVES | {"pipeline.evaluate", "pipeline.prepare", "pipeline.store", "pipeline.tracking", "models"},
    # the laws are asked of the code that trains, forecasts and scores
    "pipeline.verify": LEAVES
    | {"pipeline.evaluate", "pipeline.forecast", "pipeline.prepare", "pipeline.store", "pipeline.tracking", "pipeline.train", "models"},
    # many trainings, compared on what the engine says of origins that no choice has seen
    "pipeline.study": LEAVES
    | {"pipeline.train", "pipeline.evaluate", "pipeline.forecast", "pipeline.prepare", "pipeline.store", "pipeline.tracking", "models"},
    "pipeline.offline": LEAVES | {"pipeline.prepare", "pipeline.store", "models.gap_filling", "models.offline"},
    "pipeline.query": LEAVES | {"pipeline.store", "models.config"},
    "flows": {"pipeline", "models"},
}
OUTSIDE = {  # third-party packages that a layer must not know
    "models": {"polars", "deltalake", "mlflow", "prefect", "typer", "pydantic", "pydantic_settings"},
    "pipeline": {"prefect", "typer"},
}


def modules() -> dict[str, Path]:
    """Return every module of the three packages by its name."""
    files = (path for layer in ("models", "pipeline", "flows") for path in (ROOT / layer).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(path: Path) -> set[str]:
    """Return what a module imports anywhere in it, absolute, with `from package import module` resolved to the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


MODULES = modules()
GRAPH = {name: imports(path) for name, path in MODULES.items()}


def part(name: str) -> str:
    """Return the part of the table that a module belongs to: the longest prefix."""
    return max((prefix for prefix in ARROWS if f"{name}.".startswith(f"{prefix}.")), key=len, default="")


def is_under(name: str, prefixes: set[str]) -> bool:
    """Whether a module is one of the prefixes or below one."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("name", [name for name in MODULES if part(name)])
def test_every_import_is_an_allowed_arrow(name: str) -> None:
    """Shown to fail by `from pipeline.query.frames import query_forecasts` in pipeline/store/lake.py."""
    ours = {target for target in GRAPH[name] if target.split(".")[0] in ("models", "pipeline", "flows")}
    wrong = {target for target in ours if not is_under(target, ARROWS[part(name)] | {part(name)})}
    assert not wrong, f"{name} must not import {sorted(wrong)}: {part(name)} may import {sorted(ARROWS[part(name)])}"


@pytest.mark.parametrize("name", MODULES)
def test_layers_know_only_their_own_outside(name: str) -> None:
    """Shown to fail by `import prefect` in pipeline/clock.py."""
    forbidden = OUTSIDE.get(name.split(".", maxsplit=1)[0], set())
    assert not {target for target in GRAPH[name] if target.split(".")[0] in forbidden}


@pytest.mark.parametrize("name", MODULES)
def test_no_module_imports_through_a_package(name: str) -> None:
    """Shown to fail by `from pipeline.store import Lake` in pipeline/query/frames.py."""
    packages = {package for package, path in MODULES.items() if path.name == "__init__.py"}
    assert not GRAPH[name] & packages


def test_imports_have_no_cycle() -> None:
    """Shown to fail by importing `flows.cli` in flows/console.py."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        for target in (GRAPH[name] & MODULES.keys()) - done:
            visit(target, (*above, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize(
    ("entry", "unwanted"),
    [
        ("flows.cli", ["prefect", "torch", "lightning", "mlflow", "polars", "deltalake", "pydantic", "matplotlib", "paho"]),
        ("pipeline.query.frames", ["prefect", "torch", "lightning", "mlflow", "matplotlib"]),
        ("pipeline.query.terminal_screen", ["prefect", "torch", "lightning", "mlflow", "matplotlib"]),
        ("pipeline.query.exports", ["prefect", "torch", "lightning", "mlflow", "matplotlib"]),
        ("pipeline.forecast.rolling", ["prefect", "lightning", "matplotlib"]),
        ("flows.direct", ["prefect", "torch", "lightning", "mlflow"]),
        ("flows.forecast", ["lightning", "matplotlib"]),
    ],
)
def test_quick_paths_load_nothing_heavy(entry: str, unwanted: list[str]) -> None:
    """Shown to fail by `import lightning` in models/forecaster.py."""
    script = f"import json, sys, {entry}; print(json.dumps([name for name in {unwanted!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("path", [path for name, path in MODULES.items() if path.name != "__init__.py"], ids=lambda path: path.stem)
def test_every_module_is_in_the_architecture(path: Path) -> None:
    """With its public functions and classes, and no name that has moved elsewhere."""
    folder = path.parent.relative_to(ROOT).as_posix()
    sections = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("\n### ")
    (section,) = [text for text in sections if text.startswith(f"{folder}:")]
    (line,) = [line for line in section.splitlines() if line.startswith(f"- `{path.name}`: ")]
    told = re.search(r" \(`([\w, ]+)`\)$", line)
    names = set(told[1].split(", ")) if told else set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    stored = [node for part in body for node in ast.walk(part) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    assert names <= defined | {node.id for node in stored}
    assert {name for name in defined if not name.startswith("_")} <= names
