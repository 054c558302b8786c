"""Apps that protect every route as their authors meant are never refused, however unusual they are.

Each module of ``apps`` is one app. The modules of ``packages`` need third-party packages: see ``packages/requirements.txt``.
"""

from importlib import import_module
from pathlib import Path

import pytest

from tests.receiver.layouts.layout import assert_right

APPS = sorted(path.stem for path in (Path(__file__).parent / "apps").glob("*.py"))


def test_there_are_apps() -> None:
    assert len(APPS) >= 20


@pytest.mark.parametrize("name", APPS)
def test_an_app_that_is_right_starts_without_a_warning_and_answers_each_caller_as_its_author_meant(name: str) -> None:
    assert_right(import_module(f"tests.receiver.layouts.apps.{name}"))
