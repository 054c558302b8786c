"""Apps that protect every route as their authors meant are never refused, however unusual they are.

Each module of ``apps`` is one app. The modules of ``packages`` need third-party packages: see ``packages/requirements.txt``.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware, require_caller, require_service
from tests.receiver.layouts.layout import FOR_CHAT, TRUST, assert_right

APPS = sorted(path.stem for path in (Path(__file__).parent / "apps").glob("*.py"))


def test_there_are_apps() -> None:
    assert len(APPS) >= 20


@pytest.mark.parametrize("name", APPS)
def test_an_app_that_is_right_starts_without_a_warning_and_answers_each_caller_as_its_author_meant(name: str) -> None:
    assert_right(import_module(f"tests.receiver.layouts.apps.{name}"))


class TestAnAppThatIsNotRight:
    def test_is_noticed_if_it_lets_another_caller_in(self) -> None:
        with pytest.raises(AssertionError, match="billing, GET /x: 200 instead of 403"):
            assert_right(module_of(app_with(Depends(require_service()))))

    def test_is_noticed_if_it_refuses_the_right_caller(self) -> None:
        with pytest.raises(AssertionError, match="chat, GET /x: 403 instead of 200"):
            assert_right(module_of(app_with(Depends(require_caller("billing")))))

    def test_is_noticed_if_it_warns(self) -> None:
        with pytest.raises(AssertionError, match="insecure_skip_audience is on"):
            assert_right(module_of(app_with(Depends(require_caller("chat-app-service")), insecure_skip_audience=True)))

    def test_is_noticed_if_it_does_not_start(self) -> None:
        with pytest.raises(ConfigurationError, match="public_paths"):
            assert_right(module_of(app_with(Depends(require_service()), public_paths=["x"])))


def app_with(dependency: Any, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, **TRUST, **options)
    app.get("/x", dependencies=[dependency])(lambda: "x")
    return app


def module_of(app: FastAPI) -> ModuleType:
    module = ModuleType("of_a_test")
    vars(module).update(app=app, ANSWERS=[("GET /x", FOR_CHAT)])
    return module
