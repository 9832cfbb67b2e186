"""The documents say what the code says, where that can be checked."""

import re

from retriable_kafka_client import events
from retriable_kafka_client.wire import headers as wire
from tests.support.processes import REPOSITORY

SOURCE = REPOSITORY / "src" / "retriable_kafka_client"


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_file_map_names_every_module() -> None:
    file_map = text("DESIGN.md").partition("## File map")[2].partition("```")[2].partition("```")[0]
    named = set(re.findall(r"[a-z_]+\.py", file_map))
    modules = {path.name for path in SOURCE.rglob("*.py") if "cli" not in path.relative_to(SOURCE).parts}
    assert modules - named - {"__init__.py"} == set()
    commands = {path.name for path in SOURCE.glob("cli/**/*.py")}
    assert named - modules - commands == set()


def test_the_readme_lists_every_reason_and_header_of_a_dead_letter() -> None:
    readme = text("README.md")
    reasons = {value for name, value in vars(events).items() if name.startswith("REASON_")}
    assert set(re.findall(r"^\| `([a-z-]+)` \| .* \| (?:yes|no)", readme, re.MULTILINE)) == reasons
    for name in wire.__all__:
        value = getattr(wire, name)
        if name.isupper() and isinstance(value, str) and name != "PREFIX" and not name.startswith("CHUNK_"):
            assert f"`{value}`" in readme or f"`{value.removeprefix(wire.PREFIX)}`" in readme, value


def test_the_documents_hold_no_dead_links() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "DESIGN.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", text(name)):
            assert (REPOSITORY / target).exists(), f"{name}: {target}"


def test_the_changelog_says_nothing_twice() -> None:
    entries = re.findall(r"^- (.*)$", text("CHANGELOG.md"), re.MULTILINE)
    assert [entry for entry in entries if entries.count(entry) > 1] == []
