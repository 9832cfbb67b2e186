"""Where in a user's code an exception was raised."""

import functools
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retriable_kafka_client.user_functions.code_places import place_in, place_of, traceback_of
from tests.support.raising import raised_by
from tests.workers import handlers


def line_of(function: Any, after: int = 0) -> int:
    return int(function.__code__.co_firstlineno) + after


def outer() -> None:
    inner()


def inner() -> None:
    raise LookupError("secret")


def in_the_standard_library() -> None:
    json.loads("no json")


def test_the_innermost_frame_of_the_users_code_is_named() -> None:
    assert place_of(raised_by(outer)) == f"{__name__}:{line_of(inner, 1)} inner"
    error = raised_by(in_the_standard_library)
    assert place_of(error) == f"{__name__}:{line_of(in_the_standard_library, 1)} in_the_standard_library"


def test_without_any_it_is_where_the_function_is_defined() -> None:
    assert place_of(ValueError(), function=outer) == f"{__name__}:{line_of(outer)} outer"
    wrapped = functools.partial(functools.wraps(outer)(lambda: None))
    assert place_in(wrapped) == f"{__name__}:{line_of(outer)} outer"
    assert (
        place_in(handlers.nothing_async)
        == f"{handlers.__name__}:{line_of(handlers.nothing_async)} nothing_async"
    )
    assert place_in(print) is None
    assert place_of(ValueError()) is None


def installed(folder: Path, name: str, text: str) -> ModuleType:
    """A module that stands in a site-packages folder."""
    package = folder / "site-packages" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    found = importlib.util.spec_from_file_location(name, package / "__init__.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_an_installed_package_is_the_users_only_if_it_was_called(tmp_path: Path) -> None:
    client = installed(tmp_path, "some_client", "def call():\n    raise OSError\n")
    shop = installed(tmp_path, "some_shop", "def handle(client):\n    client.call()\n")

    def handler() -> None:
        client.call()

    assert place_of(raised_by(handler)) == f"{__name__}:{line_of(handler, 1)} handler"
    assert place_of(raised_by(lambda: shop.handle(client))) is not None
    error = raised_by(functools.partial(shop.handle, client))
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without the test's own frame
    assert place_of(error) == "some_shop:2 handle"


def test_nothing_but_names_and_lines_is_told() -> None:
    error = raised_by(outer)
    assert "secret" not in (place_of(error) or "")
    text = traceback_of(error)
    assert text is not None
    assert "secret" in text and "inner" in text and len(text) < 5_000


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.skipif(sys.version_info < (3, 11), reason="as the library")
def test_a_traceback_that_cannot_be_written_is_none() -> None:
    assert traceback_of(Silent()) is None or "Silent" in (traceback_of(Silent()) or "")
