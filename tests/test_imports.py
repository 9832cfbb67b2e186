"""The wings keep their rules: who imports whom, no circles, and only one wing knows the names of the client's settings.

Decided from the source text alone: a lazy import inside a function counts like any other, and so does one of ours under
`if TYPE_CHECKING:`, for rules and for circles: who reads the one module has to read the other.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = "retriable_kafka_client"

VALUES = frozenset({"errors", "events", "health", "message", "stats"})
PUBLIC = VALUES | {"config", "testing", ""}
"""The modules at the top level, which users import; "" is the package itself, with all public names."""

RULES: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "events": frozenset(),
    "stats": frozenset(),
    "runtime": frozenset({"errors"}),
    "wire": frozenset({"errors"}),
    "health": frozenset({"wire"}),
    "user_functions": frozenset(),
    "message": frozenset({"errors", "user_functions", "wire"}),
    "core": frozenset({"errors", "events", "user_functions", "wire"}),
    "brokers": VALUES | {"core", "runtime", "user_functions", "wire"},
    "config": VALUES | {"brokers", "core", "wire"},
    "sending": VALUES | {"brokers", "core", "wire"},
    "producer": VALUES | {"brokers", "config", "runtime", "sending", "wire"},
    "transactions": VALUES | {"brokers", "config", "core", "runtime", "sending"},
    "workers": VALUES | {"core", "runtime", "user_functions", "wire"},
    "consumer": VALUES
    | {
        "brokers",
        "config",
        "core",
        "runtime",
        "sending",
        "transactions",
        "user_functions",
        "wire",
        "workers",
    },
    "": VALUES | {"config", "consumer", "producer", "workers"},
    "testing": VALUES | {"brokers", "wire"},
    "compat": PUBLIC,
    "cli": PUBLIC,
}
"""What each wing, or module at the top level, may import besides its own modules: an order from below to above."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    (
        "compat.consumer",
        "user_functions.interrupts",
    ): "a 0.x filter that raises passes the record over, unless it was Ctrl-C",
    (
        "compat.consumer",
        "user_functions.results",
    ): "the same for a filter whose answer is a coroutine, which is true",
    (
        "compat.orchestrate",
        "runtime.monkey_patching",
    ): "its pool starts before there is a Consumer, and would hang where threads are greenlets",
    (
        "compat.producer",
        "wire.headers",
    ): "a 0.x program sends chunks that it made itself, by the header's name (docs/headers.md)",
    (
        "cli.demo.brokers",
        "wire.headers",
    ): "reads dead letters by the names of their headers (docs/headers.md); no public name does so",
    (
        "cli.demo.brokers",
        "brokers.client",
    ): "makes topics, reads dead letters and asks for a group's lag; no public name does so",
}
"""What one module may import beside its wing's rule, and why that has no public name."""

WITHOUT_CLIENT = frozenset({"config", "core", "runtime", "user_functions", "wire", "workers", ""}) | VALUES
"""These do not import confluent_kafka themselves."""

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


def wing_of(name: str) -> str:
    """The wing, or the module at the top level, that a module of ours belongs to."""
    return name.partition(".")[2].partition(".")[0]


def forbidden(name: str, target: str) -> str | None:
    """Why the module may not import the target; None when it may."""
    wing = wing_of(name)
    top = target.partition(".")[0]
    if top == PACKAGE:
        other = wing_of(target)
        if (name.partition(".")[2], target.partition(".")[2]) in EXCEPTIONS:
            return None
        return (
            None if other == wing or other in RULES[wing] else f"{wing} may not import {other or 'the root'}"
        )
    if wing == "core" and top not in PURE:
        return "core is pure"
    if wing in WITHOUT_CLIENT and top == "confluent_kafka":
        return f"{wing} runs without the client"
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
            # Under TYPE_CHECKING the client's types may be named: nothing is imported when it runs.
            lenient = one.typing_only and one.target.partition(".")[0] != PACKAGE
            reason = None if lenient else forbidden(name, one.target)
            if reason:
                broken.append(f"{name}:{one.line}: imports {one.target}: {reason}")
            if one.target in known and one.target != name:
                graph[name].add(one.target)
    return broken + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]


SETTING = re.compile(r"[a-z]+(\.[a-z0-9]+)+|[a-z]+_cb|on_commit")
"""What looks like the name of a client's or a topic's setting; a string that is nothing else."""

MAY_NAME_SETTINGS = {
    "brokers": "the wing that knows them",
    "config": "Cluster's arguments stand for those of a connection",
    "compat.connection": "0.x programs connect by them (additional_settings)",
}

MAY_NAME_ERRORS = {
    "brokers": "the wing that knows them",
    "compat": "0.x programs are given KafkaError itself",
}

NO_SETTINGS = frozenset({"gevent.monkey", "eventlet.patcher"})
"""Strings of this form that are something else."""


def errors_elsewhere(source: Path) -> list[str]:
    """Every error code of the client (`KafkaError.X`) outside the code that may know it, as `module:line: code`."""
    return [
        f"{name}:{node.lineno}: {node.attr}"
        for name, path in modules(source).items()
        if wing_of(name) not in MAY_NAME_ERRORS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "KafkaError"
    ]


def settings_elsewhere(source: Path) -> list[str]:
    """Every name of a setting outside the code that may know it, as `module:line: name`. Names within texts do not count."""
    found = []
    for name, path in modules(source).items():
        if wing_of(name) in MAY_NAME_SETTINGS or name.partition(".")[2] in MAY_NAME_SETTINGS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            if SETTING.fullmatch(node.value) and node.value not in NO_SETTINGS:
                found.append(f"{name}:{node.lineno}: {node.value}")
    return found


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


def test_only_brokers_names_error_codes(tmp_path: Path) -> None:
    assert errors_elsewhere(SOURCE) == []
    planted = tmp_path / PACKAGE / "consumer" / "loop.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("late = error.code() == KafkaError._TIMED_OUT\n", encoding="utf-8")
    assert errors_elsewhere(tmp_path) == [f"{PACKAGE}.consumer.loop:1: _TIMED_OUT"]


def test_only_brokers_names_settings() -> None:
    assert settings_elsewhere(SOURCE) == []


@pytest.mark.parametrize(
    "code",
    [
        'limit = settings["session.timeout.ms"]',
        'x = {"statistics.interval.ms": 40}',
        'x = settings.get("group.id", "")',
        'settings["stats_cb"] = print',
        'def f(settings):\n    return {**settings, "on_commit": print}',
        'STARTS = "auto.offset.reset"',
        'large = {**settings, "transactional.id": f"{name}-large"}',
    ],
)
def test_a_setting_elsewhere_is_found(tmp_path: Path, code: str) -> None:
    package = tmp_path / PACKAGE
    (package / "consumer").mkdir(parents=True)
    (package / "brokers").mkdir()
    (package / "config.py").write_text(code + "\n", encoding="utf-8")
    (package / "brokers/client.py").write_text(code + "\n", encoding="utf-8")
    loop = package / "consumer/loop.py"
    loop.write_text(
        "raise ValueError(\"Cluster.settings['group.id'] is not yours: see group.protocol\")\n",
        encoding="utf-8",
    )
    assert settings_elsewhere(tmp_path) == []
    loop.write_text(code + "\n", encoding="utf-8")
    assert len(settings_elsewhere(tmp_path)) == 1


def test_each_wing_has_a_rule() -> None:
    assert {wing_of(name) for name in modules(SOURCE)} == set(RULES)


def test_each_exception_is_needed() -> None:
    found = modules(SOURCE)
    known = frozenset(found)
    for importer, target in EXCEPTIONS:
        name = f"{PACKAGE}.{importer}"
        assert f"{PACKAGE}.{target}" in {one.target for one in imports_of(name, found[name], known)}
        assert wing_of(f"{PACKAGE}.{target}") not in RULES[wing_of(name)]


def test_the_rules_are_an_order() -> None:
    assert cycles({wing: set(others) for wing, others in RULES.items()}) == []


@pytest.mark.parametrize(
    ("module", "code", "found"),
    [
        ("core/engine.py", "import threading", "core is pure"),
        ("core/engine.py", "def f():\n    from time import monotonic", "core is pure"),
        ("core/engine.py", "import confluent_kafka", "core is pure"),
        ("core/engine.py", "from os import path", "core is pure"),
        ("core/engine.py", "from ..config import Limits", "core may not import config"),
        ("core/engine.py", "from retriable_kafka_client import config", "core may not import config"),
        ("core/engine.py", "from retriable_kafka_client import Consumer", "core may not import the root"),
        ("wire/headers.py", "from retriable_kafka_client.core import engine", "wire may not import core"),
        ("message.py", "import confluent_kafka.admin", "message runs without the client"),
        ("message.py", "if TYPE_CHECKING:\n    from .core import engine", "message may not import core"),
        ("consumer/consumer.py", "from ..cli import main", "consumer may not import cli"),
        ("cli/__init__.py", "from ..consumer.consumer import Consumer", "cli may not import consumer"),
        ("cli/demo.py", "from retriable_kafka_client.wire.headers import Marks", "cli may not import wire"),
        ("wire/headers.py", "from retriable_kafka_client import message", "cycle: "),
        ("core/offsets.py", "import retriable_kafka_client.core.engine", "cycle: "),
        ("core/offsets.py", "if TYPE_CHECKING:\n    from .engine import Engine", "cycle: "),
    ],
)
def test_a_violation_is_found(tmp_path: Path, module: str, code: str, found: str) -> None:
    package = tmp_path / PACKAGE
    good = {
        "__init__.py": "from retriable_kafka_client.consumer.consumer import Consumer",
        "errors.py": "",
        "wire/__init__.py": "",
        "wire/headers.py": "import struct\nif TYPE_CHECKING:\n    from confluent_kafka import Message",
        "message.py": "from retriable_kafka_client.wire.headers import Marks",
        "config.py": "",
        "consumer/__init__.py": "",
        "consumer/consumer.py": "import threading\nimport confluent_kafka\nfrom .. import config\nfrom ..core import engine",
        "core/__init__.py": "",
        "core/engine.py": "from retriable_kafka_client.wire.headers import Marks\nfrom . import offsets",
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
