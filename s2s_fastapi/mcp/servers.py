"""The two kinds of tool servers, official and FastMCP, in their two generations each, behind one face."""

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.routing import Route

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.mcp.allowed import admits, required, requirement_on
from s2s_fastapi.mcp.message import ClientMessage, noting
from s2s_fastapi.mcp.reading import READING
from s2s_fastapi.requirement.requirement import Requirement

__all__ = [
    "Component",
    "Guard",
    "ToolServer",
    "endpoint_of",
    "failure_for_client",
    "refusal_for_client",
    "tool_server_of",
]

Guard = Callable[[ClientMessage, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""What every message passes: it is given the message, and what answers it."""

_ENDPOINT: Final = "StreamableHTTPASGIApp"
"""The class of the endpoint, in all of them."""
_INVALID_REQUEST: Final = -32600
_INTERNAL_ERROR: Final = -32603
"""JSON-RPC 2.0 section 5.1."""
_UNKNOWN: Final = (
    "tool_server takes a server of the official SDK (mcp.server.mcpserver.MCPServer, or mcp.server.fastmcp.FastMCP in mcp 1.x) or of FastMCP "
    "(fastmcp.FastMCP), not {}."
)


@dataclass(frozen=True, slots=True)
class Component:
    """A tool, a resource, a resource template or a prompt, and what is required of who uses it."""

    kind: str
    name: str
    """A resource's is its URI."""
    requirement: Requirement | None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class ToolServer(Protocol):
    """What `tool_server` needs of a server."""

    def http_app(self) -> Starlette:
        """Return the server's own ASGI app."""

    def install(self, guard: Guard) -> None:
        """Let every message pass ``guard``."""

    async def components(self) -> list[Component]:
        """Return all that can be used."""

    async def wanted(self, message: ClientMessage) -> list[Component]:
        """Return what a message uses, if the server does not ask `Allowed` by itself."""

    def shown(self, method: str) -> list[Component]:
        """Return what a list may hold, if the server does not ask `Allowed` by itself."""


class _Official:
    """A server of the official SDK, ``mcp``."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._lowlevel = getattr(server, "_lowlevel_server", None) or server._mcp_server  # noqa: SLF001 - the SDK has no other way

    def http_app(self) -> Starlette:
        app: Starlette = self._server.streamable_http_app()
        return app

    def install(self, guard: Guard) -> None:
        install_guard(self._lowlevel, guard)
        manager = self._server._tool_manager  # noqa: SLF001 - the SDK has no other way
        call_tool = manager.call_tool
        manager.call_tool = lambda *args, **kwargs: noting(call_tool(*args, **kwargs))

    async def components(self) -> list[Component]:
        return [*self._tools(), *self._prompts(), *self._resources(), *self._templates()]

    async def wanted(self, message: ClientMessage) -> list[Component]:
        target = message.target
        if message.method == "tools/call":
            return [_among(self._tools(), "tool", target)]
        if message.method == "prompts/get":
            return [_among(self._prompts(), "prompt", target)]
        if message.method == "completion/complete":
            known = {"prompt": self._prompts, "template": self._templates}
            return [_among(known[kind](), kind, name) for kind, name in message.completes]
        return [self._at(uri) for uri in message.uris]

    def shown(self, method: str) -> list[Component]:
        lists = {
            "tools/list": self._tools,
            "prompts/list": self._prompts,
            "resources/list": self._resources,
            "resources/templates/list": self._templates,
        }
        return lists[method]()

    def _tools(self) -> list[Component]:
        tools = self._server._tool_manager.list_tools()  # noqa: SLF001 - the public list has no functions
        return [Component("tool", tool.name, requirement_on(tool.fn)) for tool in tools]

    def _prompts(self) -> list[Component]:
        prompts = self._server._prompt_manager.list_prompts()  # noqa: SLF001 - the same
        return [Component("prompt", prompt.name, requirement_on(prompt.fn)) for prompt in prompts]

    def _resources(self) -> list[Component]:
        resources = self._server._resource_manager.list_resources()  # noqa: SLF001 - the same
        # A text or a file has no function.
        return [Component("resource", str(each.uri), requirement_on(getattr(each, "fn", None))) for each in resources]

    def _templates(self) -> list[Component]:
        return [Component("template", each.uri_template, requirement_on(each.fn)) for each in self._template_list()]

    def _at(self, uri: str) -> Component:
        """Return the resource of a URI, or the first template that it matches, as the SDK does."""
        for resource in self._resources():
            if resource.name == uri:
                return resource
        for template in self._template_list():
            try:
                # mcp 2.x returns None, mcp 1.x an empty dict; a template without parameters has an empty one in both.
                matches = template.matches(uri) is not None
            except Exception:  # noqa: BLE001 - the SDK refuses such a URI with an error of its own
                matches = True
            if matches:
                return Component("template", template.uri_template, requirement_on(template.fn))
        return Component("resource", "", None)

    def _template_list(self) -> list[Any]:
        templates: list[Any] = self._server._resource_manager.list_templates()  # noqa: SLF001 - the same
        return templates


class _FastMcp:
    """A server of FastMCP. It asks `Allowed` by itself, and a check of ours for components that have none."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def http_app(self) -> Starlette:
        app: Starlette = self._server.http_app()
        return app

    def install(self, guard: Guard) -> None:
        install_guard(self._server._mcp_server, guard)  # noqa: SLF001 - FastMCP has no other way
        middleware = importlib.import_module("fastmcp.server.middleware.authorization").AuthMiddleware

        class Innermost(middleware):  # type: ignore[misc, valid-type] # its base is only known now
            async def on_call_tool(self, context: Any, call_next: Any) -> Any:
                return await super().on_call_tool(context, lambda inner: noting(call_next(inner)))

        self._server.add_middleware(Innermost(auth=_Default()))

    async def components(self) -> list[Component]:
        server = self._server
        lists = (
            ("tool", server.list_tools, "name"),
            ("prompt", server.list_prompts, "name"),
            ("resource", server.list_resources, "uri"),
            ("template", server.list_resource_templates, "uri_template"),
        )
        reading = READING.set(True)
        try:
            return [
                _read(kind, await _behind(each), str(getattr(each, name)))
                for kind, listed, name in lists
                for each in await listed(run_middleware=False)
            ]
        finally:
            READING.reset(reading)

    async def wanted(self, message: ClientMessage) -> list[Component]:
        if message.over_http:
            return []
        # FastMCP skips all checks over stdio.
        reading, target, server = READING.set(True), message.target, self._server
        try:
            if message.method == "tools/call":
                found = [await server.get_tool(target)]
            elif message.method == "prompts/get":
                found = [await server.get_prompt(target)]
            else:
                found = [
                    await server.get_resource(uri) or await server.get_resource_template(uri) for uri in message.uris
                ]
        finally:
            READING.reset(reading)
        return [_read(message.method, await _behind(each), target) for each in found if each is not None]

    def shown(self, method: str) -> list[Component]:  # noqa: ARG002 - the seam's signature
        return []


class _Default:
    """FastMCP's check for all components: one without a requirement of ours is for services."""

    __name__ = "allowed(require_service(), unless a component says otherwise)"

    async def __call__(self, subject: Any) -> bool:
        component = subject.component
        behind = await _behind(component)
        on_function = requirement_on(getattr(behind, "fn", None))
        if on_function is not None and not admits(component, on_function):
            return False
        return required(behind) is not None or admits(component, None)


async def _behind(component: Any) -> Any:
    """Return the component of a mounted server, if this is only the wrapper that FastMCP puts around it. The wrapper has no ``auth``."""
    reading = READING.set(True)
    try:
        while component.auth is None and (server := getattr(component, "_server", None)) is not None:
            ways = {
                "_original_name": server.get_prompt if hasattr(component, "render") else server.get_tool,
                "_original_uri": server.get_resource,
                "_original_uri_template": server.get_resource_template,
            }
            found = [await get(named) for name, get in ways.items() if (named := getattr(component, name, None))]
            if not found or found[0] is None:
                break
            component = found[0]
    finally:
        READING.reset(reading)
    return component


def tool_server_of(server: Any) -> ToolServer:
    """Return the face of a server.

    Raises:
        ConfigurationError: It is of no kind that is known.
    """
    modules = {f"{each.__module__}.{each.__name__}" for each in type(server).__mro__}
    if "fastmcp.server.server.FastMCP" in modules:
        return _FastMcp(server)
    if modules & {"mcp.server.mcpserver.server.MCPServer", "mcp.server.fastmcp.server.FastMCP"}:
        return _Official(server)
    raise ConfigurationError(_UNKNOWN.format(type(server).__name__))


def endpoint_of(app: Any) -> Route:
    """Return the route of the endpoint in an app that a server made.

    Raises:
        ConfigurationError: There is none, or the server verifies tokens itself.
    """
    for route in getattr(app, "routes", ()):
        if isinstance(route, Route):
            endpoint: Any = route.endpoint
            if type(endpoint).__name__ == _ENDPOINT:
                return route
            if type(getattr(endpoint, "app", None)).__name__ == _ENDPOINT:
                raise ConfigurationError(
                    "The tool server verifies tokens itself. ServiceAuthMiddleware does that: take auth= and token_verifier= out of the server."
                )
    raise ConfigurationError(
        "tool_server takes the app of the transport streamable HTTP: mcp.streamable_http_app(...) of the official SDK, mcp.http_app(...) of FastMCP."
    )


def refusal_for_client(sentence: str) -> Exception:
    """Return the exception that the SDK answers with a JSON-RPC error."""
    return _error_for_client(_INVALID_REQUEST, sentence)


def failure_for_client(sentence: str) -> Exception:
    """Return the same for a failure of the server."""
    return _error_for_client(_INTERNAL_ERROR, sentence)


def _error_for_client(code: int, sentence: str) -> Exception:
    errors: Any = importlib.import_module("mcp.shared.exceptions")
    error: Exception
    if hasattr(errors, "MCPError"):
        error = errors.MCPError(code, sentence)
    else:
        data = importlib.import_module("mcp.types").ErrorData(code=code, message=sentence)
        error = errors.McpError(data)
    return error


def _among(components: list[Component], kind: str, name: str) -> Component:
    """Return the component of a name. An extension or a subclass may offer what the server does not list: nothing is required on it."""
    return next((each for each in components if each.name == name), Component(kind, "", None))


def _read(kind: str, component: Any, name: str) -> Component:
    return Component(kind, name, required(component))


def install_guard(lowlevel: Any, guard: Guard) -> None:
    """Let every message of the SDK's low-level server pass the guard."""
    if hasattr(lowlevel, "middleware"):

        async def pass_guard(context: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
            method = context.method
            entry = lowlevel.get_request_handler(method) or lowlevel.get_notification_handler(method)
            message = ClientMessage(context.request, method, context.params, getattr(entry, "handler", None))
            return await guard(message, lambda: call_next(context))

        lowlevel.middleware.append(pass_guard)
    else:
        lowlevel.request_handlers = _GuardedHandlers(lowlevel, guard)


class _GuardedHandlers(dict[Any, Any]):
    """The handlers of mcp 1.x, which has no middleware, each behind the guard; also those that are registered later."""

    def __init__(self, lowlevel: Any, guard: Guard) -> None:
        super().__init__(lowlevel.request_handlers)
        self._lowlevel = lowlevel
        self._guard = guard

    def __getitem__(self, key: Any) -> Any:
        return self._guarded(super().__getitem__(key))

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the handler that answers a message."""
        handler = super().get(key)
        return default if handler is None else self._guarded(handler)

    def _guarded(self, handler: Any) -> Any:
        async def pass_guard(request: Any) -> Any:
            if request is None:  # the SDK itself reads what tools there are
                return await handler(request)
            message = ClientMessage(self._lowlevel.request_context.request, request.method, request.params, handler)
            return await self._guard(message, lambda: handler(request))

        return pass_guard
