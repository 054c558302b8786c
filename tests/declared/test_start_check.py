"""The check of declarations against settings, as values: what it lets pass and what it names."""

from dataclasses import replace
from typing import Any

import pytest

from s2s_fastapi import (
    Requirement,
    require_audience,
    require_bound,
    require_caller,
    require_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.declared.routes import Access, RouteAccess
from s2s_fastapi.declared.sentences import Mistake
from s2s_fastapi.declared.start_check import AccessCheck

GET = frozenset({"GET"})


def check(
    *routes: RouteAccess, public: tuple[str, ...] = (), audiences: str = "crm", users: bool = False, skip: bool = False
) -> AccessCheck:
    return AccessCheck(
        access=Access(routes),
        public=PublicPaths(public),
        audiences=frozenset(audiences.split()),
        client_id="crm",
        users=users,
        skip_audience=skip,
    )


def get(path: str, requirement: Requirement | None = None, methods: frozenset[str] = GET) -> RouteAccess:
    return RouteAccess(path, methods, requirement)


class TestPublicTemplates:
    @pytest.mark.parametrize(
        ("public", "declared", "meet"),
        [
            ("/a/{x}", "/a/b", True),
            ("/a/{x}", "/a/{y}", True),
            ("/a/{x}", "/{y}/b", True),
            ("/a/{x}", "/{y}/{z}", True),
            ("/a/{x}", "/{y:int}/b", False),
            ("/a/{x:int}", "/a/b", False),
            ("/a/{x:int}", "/a/7", True),
            ("/a/{x:int}", "/a/{y:uuid}", True),
            ("/a/{x}", "/a", False),
            ("/a/{x}", "/a/", False),
            ("/a/{x}", "/a/b/c", False),
            ("/a/{x}", "/b/{x}", False),
            ("/a/{x}", "/{p:path}", True),
            ("/a/{x}", "/a{p:path}", True),
            ("/a/{x}", "/b/{p:path}", False),
            ("/a/{x}", "/a/{p:path}", True),
            ("/a/{x}/c", "/a/{p:path}/d", True),
            ("/a/{x}.json", "/a/b.json", True),
            ("/a/{x}.json", "/a/b.xml", False),
            ("/a/{x}.json", "/a/b-{y}", True),
            ("/{x}", "/", False),
        ],
    )
    def test_name_every_route_that_one_path_could_also_be_for(self, public: str, declared: str, meet: bool) -> None:
        problems = list(check(get(declared), get(public), public=(public,)).problems())
        expected = [
            f"public_paths opens GET {public}, and with it GET {declared}: write the public paths out one by one."
        ]
        assert problems == (expected if meet else [])

    def test_end_at_the_route_they_were_copied_from(self) -> None:
        assert not list(check(get("/a/{x}"), get("/a/b", require_service()), public=("/a/{x}",)).problems())
        assert list(
            check(RouteAccess("/a/{x}", GET, host="h"), get("/a/b", require_service()), public=("/a/{x}",)).problems()
        )

    def test_name_all_of_several(self) -> None:
        found = check(get("/a/b"), get("/a/c", require_service()), get("/a/{x}"), public=("/a/{x}",))
        assert [problem.partition(", ")[2] for problem in found.problems()] == [
            "and with it GET /a/b: write the public paths out one by one.",
            "but GET /a/c carries a requirement, its own or that of a router or app around it: remove one of the two. A requirement of all other routes stands on a router without this one.",
        ]

    def test_do_not_end_at_an_app_that_may_not_take_the_path(self) -> None:
        (problem,) = check(RouteAccess("/", opaque=True), get("/x", require_service()), public=("/x",)).problems()
        assert "but GET /x carries a requirement" in problem

    def test_of_a_method_that_the_route_does_not_take_do_not_meet_it(self) -> None:
        assert not list(check(get("/a/b", require_service()), public=("POST /a/{x}", "HEAD /a/b")).problems())
        assert list(check(get("/a/b", require_service(), frozenset()), public=("POST /a/{x}",)).problems())


def test_a_mount_and_its_route_may_name_their_parameters_alike() -> None:
    guarded = get("/{name}/{name}", require_service())
    opaque = RouteAccess("/files/{path}", opaque=True, requirement=require_service(), guarded_above=True)
    assert list(check(guarded, opaque, public=("/healthz", "/{name}/x")).problems()) == [
        "public_paths opens GET /{name}/x, but GET /{name}/{name} carries a requirement, its own or that of a router or app around it: remove one of the two. A requirement of all other routes stands on a router without this one.",
    ]
    assert list(check(opaque, public=("/files/{name}/b",)).problems()) == [
        "public_paths opens GET /files/{name}/b, and with it /files/{path}: write the public paths out one by one.",
    ]


def test_a_guard_above_a_public_path_is_no_problem() -> None:
    for route in (
        RouteAccess("/files", opaque=True, requirement=require_service(), guarded_above=True),
        RouteAccess("/files/a", GET, require_service(), guarded_above=True),
    ):
        assert not list(check(route, public=("/files/a",), users=True).problems())
    assert list(check(RouteAccess("/files/a", GET, require_service()), public=("/files/a",)).problems())


class TestUncovered:
    @pytest.mark.parametrize(
        ("requirement", "users", "skip", "audience"),
        [
            (None, 1, 1, 1),
            (require_service(), 0, 0, 1),
            (require_caller("a"), 0, 0, 1),
            (require_user(), 0, 0, 1),
            (require_scope("s"), 1, 0, 1),
            (require_role("r"), 1, 0, 1),
            (require_audience("crm"), 1, 1, 0),
            (require_service() | require_user(), 0, 0, 1),
            (require_service() | require_scope("s"), 1, 0, 1),
            (require_service() | require_audience("crm"), 1, 1, 1),
            (require_scope("s") & (require_service() | require_user()), 0, 0, 1),
            ((require_scope("s") & require_service()) | require_user(), 0, 0, 1),
            ((require_scope("s") & require_audience("crm")) | require_audience("b"), 1, 1, 0),
        ],
        ids=str,
    )
    def test_is_a_route_with_a_way_in_that_does_not_say_it(
        self, requirement: Requirement, users: int, skip: int, audience: int
    ) -> None:
        route = get("/x", requirement)
        uncovered = [
            sum("Missing on" in problem for problem in found.problems())
            for found in (
                check(route, users=True),
                check(route, audiences="", skip=True, users=False),
                check(route, audiences="", users=False),
            )
        ]
        assert uncovered == [users, skip, audience]

    @pytest.mark.parametrize(
        ("route", "public", "named"),
        [
            (get("/x"), ("/x",), False),
            (get("/x", methods=frozenset({"GET", "POST"})), ("/x",), True),
            (get("/x", methods=frozenset({"GET", "POST"})), ("/x", "POST /x"), False),
            (get("/x", methods=frozenset()), ("/x",), True),
            (get("/a/{x:int}"), ("/a/{x:int}",), False),
            (get("/a/{x:int}"), ("/a/{x}",), True),
            (get("/a/b"), ("/a/{x}",), False),
            (get("/a/{x:path}"), ("/a/{x}",), True),
            (
                RouteAccess("/x", websocket=True),
                ("/x", "POST /x", "PUT /x", "PATCH /x", "DELETE /x", "OPTIONS /x"),
                True,
            ),
            (RouteAccess("/x", opaque=True), ("/x", "POST /x", "PUT /x", "PATCH /x", "DELETE /x", "OPTIONS /x"), True),
            (RouteAccess("/x", GET, host="h"), ("/x",), False),
        ],
    )
    def test_is_not_what_is_public_for_all_its_methods(
        self, route: RouteAccess, public: tuple[str, ...], named: bool
    ) -> None:
        assert any("users=True" in problem for problem in check(route, public=public, users=True).problems()) is named

    def test_names_opaque_apps_as_such(self) -> None:
        (problem,) = check(RouteAccess("/files", opaque=True), audiences="", users=False).problems()
        assert problem.endswith(
            "Missing on: /files (an app whose routes cannot be read: mount a requirement's .guard(app) instead of the app)."
        )

    @pytest.mark.parametrize(
        ("path", "public", "named"),
        [
            ("/docs", (), True),
            ("/openapi.json", (), True),
            ("/redoc", (), True),
            ("/docs", ("/docs",), False),
            ("/documents", (), False),
        ],
    )
    @pytest.mark.parametrize("changes", [{"users": True}, {"skip": True}, {"audiences": ""}], ids=str)
    def test_names_what_to_do_with_fastapis_documentation(
        self, path: str, public: tuple[str, ...], named: bool, changes: dict[str, Any]
    ) -> None:
        text = " ".join(check(get(path), public=public, **changes).problems())
        assert ("public_paths=[*DOCS] to publish it, or FastAPI(openapi_url=None)" in text) is named


def test_the_declared_audiences_are_those_of_all_routes_and_ways() -> None:
    found = check(
        get("/a", require_audience("a")),
        get("/b", (require_audience("b", "c") & require_service()) | require_audience("d")),
    )
    assert found.declared == {"a", "b", "c", "d"}


def test_one_token_may_be_for_two_audiences() -> None:
    both = require_audience("a") & require_audience("b")
    assert not list(check(get("/x", both), audiences="a b").problems())


def test_mistakes_are_named_with_their_route() -> None:
    route = RouteAccess("/x", GET, mistakes=(Mistake("one"), Mistake("two", "app.py:12")))
    assert list(check(route).problems()) == ["GET /x: one.", "GET /x (app.py:12): two."]


class TestBoundTokens:
    @pytest.mark.parametrize(
        "requirement",
        [
            require_bound(),
            require_caller("a") & require_bound(),
            require_bound() | require_caller("a"),
            (require_caller("a") & require_bound()).optional(),
            require_bound(realm="partners"),
        ],
        ids=str,
    )
    def test_that_a_route_requires_need_an_app_that_takes_them(self, requirement: Requirement) -> None:
        found = check(get("/x", requirement), get("/y"))
        (problem,) = [each for each in found.problems() if "require_bound" in each]
        assert problem.startswith("GET /x: require_bound() needs an app that accepts bound tokens.")
        assert 'dpop="accepted", public_url=' in problem
        for mode in ("accepted", "required"):
            assert not [each for each in replace(found, dpop=mode).problems() if "require_bound" in each]

    def test_do_not_say_who_calls(self) -> None:
        found = replace(check(get("/x", require_bound()), users=True), dpop="required")
        (problem,) = found.problems()
        assert "who may call it" in problem
        assert not list(
            replace(check(get("/x", require_bound() & require_service()), users=True), dpop="required").problems()
        )

    def test_are_asked_for_anyway_if_they_are_required_of_every_request(self) -> None:
        """A requirement that FastAPI does not ask stops no start if the middleware lets in nobody who does not meet it."""
        lost = RouteAccess("/x", GET, mistakes=(Mistake("not asked", requirement=require_bound()),))
        assert [each for each in replace(check(lost), dpop="accepted").problems() if "not asked" in each]
        assert not list(replace(check(lost), dpop="required").problems())
