"""The direction of imports: shell -> core -> base, nothing towards the command, no cycles.

Decided from the source text alone, so a lazy import inside a function counts like any other; only what
stands under `if TYPE_CHECKING:` is left out of the search for cycles, since it is never run.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = "retriable_kafka_client"
BASE = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "checks",
        "errors",
        "events",
        "interrupts",
        "message",
        "outbox",
        "outgoing",
        "places",
        "results",
        "wire",
    )
)
CORE = f"{PACKAGE}.core"
CLI = f"{PACKAGE}.cli"

PURE = frozenset(
    {
        "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib",
        "dataclasses", "datetime", "enum", "fractions", "functools", "hashlib", "heapq", "itertools",
        "json", "math", "operator", "re", "string", "struct", "types", "typing", "unicodedata", "zlib",
    }
)  # fmt: skip
"""What of the standard library the core may import: nothing that has a clock, chance, locks, logs or I/O."""


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, as a full dotted name, and where that was written."""

    target: str
    line: int
    typing_only: bool


def modules(source: Path) -> dict[str, Path]:
    """All modules below `source`, by their dotted names."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known: frozenset[str]) -> Iterator[Import]:
    """What the module imports; of `from package import name` the module `package.name` if that is one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in typing_only)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                start = ".".join([*anchor, start]).rstrip(".")
            for alias in node.names:
                inner = f"{start}.{alias.name}"
                yield Import(inner if inner in known else start, node.lineno, id(node) in typing_only)


def inside(target: str, package: str) -> bool:
    """Whether a dotted name is the package or lies in it."""
    return target == package or target.startswith(f"{package}.")


def forbidden(name: str, target: str) -> str | None:
    """Why the module may not import the target; None when it may."""
    if inside(target, CLI) and not inside(name, CLI):
        return "only the command imports the command"
    layer = "core" if inside(name, CORE) else "base" if name in BASE else None
    if layer is None:
        return None
    if inside(target, PACKAGE):
        allowed = target in BASE or (layer == "core" and inside(target, CORE))
        return None if allowed else f"{layer} imports {'core and ' if layer == 'core' else ''}base only"
    top = target.partition(".")[0]
    if layer == "core" and top not in PURE:
        return "core is pure"
    if layer == "base" and top == "confluent_kafka":
        return "base runs without the client"
    return None


def violations(source: Path) -> list[str]:
    """Every import that breaks a rule, and every cycle, as `module:line: what`."""
    found = modules(source)
    known = frozenset(found)
    graph: dict[str, set[str]] = {}
    broken = []
    for name, path in found.items():
        graph[name] = set()
        for one in imports_of(name, path, known):
            # Under TYPE_CHECKING the base may name the client's types: nothing is imported when it runs.
            lenient = one.typing_only and not inside(one.target, PACKAGE)
            reason = None if lenient else forbidden(name, one.target)
            if reason:
                broken.append(f"{name}:{one.line}: imports {one.target}: {reason}")
            if one.target in known and one.target != name and not one.typing_only:
                graph[name].add(one.target)
    return broken + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle through each edge that closes one in a depth-first walk; empty when there is none."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for target in sorted(graph[name]):
                walk(target, [*path, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])
    return found


def test_imports_go_one_way() -> None:
    assert violations(SOURCE) == []


def test_the_layers_are_there() -> None:
    found = modules(SOURCE)
    assert BASE.issubset(found)
    assert any(name.startswith(f"{CORE}.") for name in found)


@pytest.mark.parametrize(
    ("module", "code", "found"),
    [
        ("core/engine.py", "import threading", "core is pure"),
        ("core/engine.py", "def f():\n    from time import monotonic", "core is pure"),
        ("core/engine.py", "import confluent_kafka", "core is pure"),
        ("core/engine.py", "from os import path", "core is pure"),
        ("core/engine.py", "from ..config import Limits", "core imports core and base only"),
        ("core/engine.py", "from retriable_kafka_client import config", "core imports core and base only"),
        ("core/engine.py", "from retriable_kafka_client import Consumer", "core imports core and base only"),
        ("wire.py", "from retriable_kafka_client.core import engine", "base imports base only"),
        ("message.py", "import confluent_kafka.admin", "base runs without the client"),
        ("consumer.py", "from .cli import main", "only the command imports the command"),
        ("wire.py", "from retriable_kafka_client import message", "cycle: "),
        ("config.py", "import retriable_kafka_client.consumer.consumer", "cycle: "),
    ],
)
def test_a_violation_is_found(tmp_path: Path, module: str, code: str, found: str) -> None:
    package = tmp_path / PACKAGE
    good = {
        "__init__.py": "from retriable_kafka_client.consumer.consumer import Consumer",
        "errors.py": "",
        "wire.py": "import struct",
        "message.py": "from retriable_kafka_client.wire.headers import Marks",
        "config.py": "import confluent_kafka",
        "consumer.py": "import threading\nfrom . import config\nfrom .core import engine",
        "core/__init__.py": "",
        "core/engine.py": "from retriable_kafka_client.message import Message\nfrom . import offsets",
        "core/offsets.py": "from heapq import heappop\nfrom ..errors import ConfigError",
        "cli/__init__.py": "from retriable_kafka_client import Consumer\nfrom .demo import show",
        "cli/demo.py": "",
    }
    for name, text in good.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    assert violations(tmp_path) == []
    with (package / module).open("a", encoding="utf-8") as file:
        file.write(code + "\n")
    broken = violations(tmp_path)
    assert broken
    assert any(found in line for line in broken), broken
