"""Apps on third-party packages that protect every route as their authors meant are never refused.

pytest does not collect this file by itself, because its packages are only in the environment of ``make test-layouts``.
"""

from importlib import import_module
from pathlib import Path

import pytest

from tests.receiver.layouts.layout import assert_right

APPS = sorted(path.stem for path in (Path(__file__).parent / "apps").glob("*.py"))


@pytest.mark.parametrize("name", APPS)
def test_an_app_on_a_package_starts_without_a_warning_and_answers_each_caller_as_its_author_meant(name: str) -> None:
    assert_right(import_module(f"tests.receiver.layouts.packages.apps.{name}"))
