"""Mistakes planted into `ServiceRoute`: each is the class with a few words of its source replaced."""

import inspect
from types import ModuleType
from typing import Any, cast

from fastapi.routing import APIRoute

from s2s_fastapi.requirement import service_route

_UNCHECKED = ("if state is None or requirement not in state.asked:", "if state is None:")
"""The check around the endpoint taken out. Alone it changes nothing, so it goes together with a mistake that it would catch."""

FAULTS: dict[str, tuple[tuple[str, str], ...]] = {
    "asks nothing": (("ask(requirement, request.scope)", "pass"),),
    "asks nothing and does not look": (("ask(requirement, request.scope)", "pass"), _UNCHECKED),
    "asks only the first": (("in plan.requirements:", "in plan.requirements[:1]:"), _UNCHECKED),
    "asks only the last": (("in plan.requirements:", "in plan.requirements[-1:]:"), _UNCHECKED),
    "asks in another order": (("in plan.requirements:", "in reversed(plan.requirements):"),),
    "asks one of each kind": (
        ("tuple(dict.fromkeys(wanted))", "tuple({type(each): each for each in wanted}.values())"),
        _UNCHECKED,
    ),
    "asks of the route as it was written, not as it was included": (
        ("route = route_of_handler(self)", "route = self"),
    ),
    "asks what the last route of a loop requires": (
        ("nonlocal plan\n", "global plan\n"),
        ("plan: _Plan | None = None\n", "globals()['plan'] = None\n"),
        ("dependant.dependencies is self.held", "True"),
        ("dependant.call is self.endpoint", "True"),
        ("self.calls)", "())"),
        ("plan is None or not plan.holds(dependant)", "plan is None"),
    ),
    "asks each caller once, whoever it is": (
        (
            "ask(requirement, request.scope)",
            "requirement in _SEEN or ask(requirement, request.scope) or _SEEN.add(requirement)",
        ),
        ("_CONNECTION: Final", "_SEEN: Any = set()\n_CONNECTION: Final"),
        _UNCHECKED,
    ),
    "asks after the handler": (
        (
            "            for requirement in plan.requirements:\n",
            "            response = await plain(request)\n            for requirement in plan.requirements:\n",
        ),
    ),
    "reads the body first": (
        ("            overrides = route.", "            await request.body()\n            overrides = route."),
    ),
    "lets the refused pass": (
        (
            "ask(requirement, request.scope)",
            "\n                try: ask(requirement, request.scope)\n                except Exception: pass",
        ),
        _UNCHECKED,
    ),
    "does not ask for HEAD": (
        ("in plan.requirements:", "in (() if request.method == 'HEAD' else plan.requirements):"),
        _UNCHECKED,
    ),
    "forgets the scopes of Security": (("each.own_oauth_scopes or ()", "()"), _UNCHECKED),
    "asks although there are overrides": ((" or (overrides is not None and overrides.dependency_overrides)", ""),),
    "does not notice a dependency that comes later": (("self.mark is WatchedList.mark", "True"),),
    "does not notice a requirement that is replaced": (("dependency.call is call for", "True for"),),
    "drops all other dependencies": (("if not _is_plain(each.call)]", "if False]"),),
    "drops dependencies below which something is asked": (
        ("if not _is_plain(each.call)]", "if not _is_plain(each.call) and not each.dependencies]"),
    ),
    "gives no value": (("for name in names:", "for name in ():"),),
    "gives a value to the first name only": (("for name in names:", "for name in names[:1]:"),),
    "gives everybody the first caller": (
        ("state.principal\n", "_FIRST.setdefault(0, state.principal)\n"),
        ("_CONNECTION: Final", "_FIRST: Any = {}\n_CONNECTION: Final"),
    ),
    "gives the endpoint the request": (("values.pop(_CONNECTION)", "values[_CONNECTION]"),),
    "leaves out another route class": (('getattr(inner, "__func__", None) is APIRoute.get_route_handler', "True"),),
    "asks the conditions again": (("_note(request, plan.conditions)", "pass"),),
    "remembers the conditions for the endpoint's own code": (("            state.noted = ()", "            pass"),),
}


def planted(fault: str) -> type[APIRoute]:
    """Return `ServiceRoute` with a fault.

    Raises:
        LookupError: The source has no such words any more.
    """
    source = inspect.getsource(service_route)
    for old, new in FAULTS[fault]:
        if source.count(old) != 1:
            raise LookupError(f"{fault}: {old!r} stands {source.count(old)} times in the source")
        source = source.replace(old, new)
    module = ModuleType(service_route.__name__)
    exec(compile(source, f"<{fault}>", "exec"), module.__dict__)  # noqa: S102 - our own source
    return cast("type[APIRoute]", cast("Any", module).ServiceRoute)
