"""Requests that pass validation: the smallest valid value for each schema of an OpenAPI document."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

__all__ = ["Sample", "sample_of", "value_of", "with_every_parameter", "with_path_parameters"]

_DEEPEST: Final = 12
"""Levels of a schema that refers to itself."""
_PARAMETER: Final = re.compile(r"\{([^}:]+)(?::([^}]+))?\}")
_CONVERTED: Final = {"int": "1", "float": "1.5", "uuid": "00000000-0000-4000-8000-000000000000", "path": "x"}
_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1S",
    "email": "ann@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uuid4": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1",
    "byte": "eA==",
    "json-string": "{}",
    "hostname": "example.com",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What a valid request has besides its method: the path, the query, headers and a body."""

    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


def sample_of(path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> Sample:
    """Return a valid request for an operation of an OpenAPI document; ``path`` is as the app declares it."""
    query: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    cookies: list[str] = []
    values: dict[str, str] = {}
    for parameter in operation.get("parameters", ()):
        where = parameter["in"]
        if not parameter.get("required") and where != "path":
            continue
        value = _as_text(_example(parameter, document))
        if where == "path":
            values[parameter["name"]] = value
        elif where == "query":
            query.append((parameter["name"], value))
        elif where == "header":
            headers.append((parameter["name"].lower(), value))
        else:
            cookies.append(f"{parameter['name']}={value}")
    if cookies:
        headers.append(("cookie", "; ".join(cookies)))
    content_type, body = _body(operation.get("requestBody", {}).get("content", {}), document)
    if content_type:
        headers.append(("content-type", content_type))
    return Sample(with_path_parameters(path, values), urlencode(query), tuple(headers), body)


def with_path_parameters(path: str, values: Mapping[str, str] | None = None) -> str:
    """Return a path of Starlette with a value in the place of each parameter."""

    def value(found: re.Match[str]) -> str:
        given = (values or {}).get(found[1])
        return quote(given if given is not None else _CONVERTED.get(found[2] or "", "1"), safe="")

    return _PARAMETER.sub(value, path)


def with_every_parameter(path: str, value: str) -> str:
    """Return a path of Starlette with one value in the place of every parameter."""
    return _PARAMETER.sub(quote(value, safe=""), path)


def _body(content: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, bytes]:
    for content_type, media in content.items():
        value = _example(media, document)
        if content_type.endswith("json"):
            return content_type, json.dumps(value).encode()
        if content_type == "application/x-www-form-urlencoded":
            return content_type, urlencode(value or {}, doseq=True).encode()
        if content_type == "multipart/form-data":
            return "multipart/form-data; boundary=attack", _multipart(value or {})
        return content_type, _as_text(value).encode()
    return "", b""


def _multipart(values: Mapping[str, Any]) -> bytes:
    fields = "".join(
        f'--attack\r\ncontent-disposition: form-data; name="{name}"; filename="x"\r\n\r\n{_as_text(value)}\r\n'
        if isinstance(value, bytes)
        else f'--attack\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{_as_text(value)}\r\n'
        for name, several in values.items()
        for value in (several if isinstance(several, list) else [several])
    )
    return f"{fields}--attack--\r\n".encode()


def _example(holder: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    if "example" in holder:
        return holder["example"]
    for example in holder.get("examples", {}).values() if isinstance(holder.get("examples"), dict) else ():
        if "value" in example:
            return example["value"]
    return value_of(holder.get("schema", {}), document)


def value_of(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int = 0) -> Any:
    """Return the smallest value that is valid for a schema; None if that cannot be found."""
    if "$ref" in schema:
        schema = _referred(schema["$ref"], document)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("examples"):
        return schema["examples"][0]
    if "example" in schema:
        return schema["example"]
    if schema.get("enum"):
        return schema["enum"][0]
    if depth > _DEEPEST:
        return None
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            # A value that is not null tells more, unless the schema goes on and on.
            null = depth > _DEEPEST // 2
            choices = sorted(schema[name], key=lambda choice: (choice.get("type") == "null") != null)
            return value_of(choices[0], document, depth + 1)
    if schema.get("allOf"):
        parts = [value_of(part, document, depth + 1) for part in schema["allOf"]]
        return (
            {name: value for part in parts for name, value in part.items()} if isinstance(parts[0], dict) else parts[0]
        )
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _OF_TYPE.get(kind[0] if isinstance(kind, list) else kind, _null)(schema, document, depth)


def _referred(reference: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = document
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name.replace("~1", "/").replace("~0", "~"), {})
    return found if isinstance(found, Mapping) else {}


def _object(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> Any:
    members = schema.get("properties", {})
    return {name: value_of(members.get(name, {}), document, depth + 1) for name in schema.get("required", ())}


def _array(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> Any:
    prefix = [value_of(item, document, depth + 1) for item in schema.get("prefixItems", ())]
    least = schema.get(
        "minItems", 1 if depth <= 1 else 0
    )  # an empty list in a form or a query would not be there at all
    more = least - len(prefix)
    return [*prefix, *(value_of(schema.get("items", {}), document, depth + 1) for _ in range(more))]


def _string(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> Any:
    del document, depth
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return b"x"
    text = _FORMATS.get(schema.get("format", ""), "x")
    pattern = schema.get("pattern")
    if pattern:
        text = next((each for each in _TEXTS if re.search(pattern, each)), text)
    text = text.ljust(schema.get("minLength", 0), "x")
    return text[: schema["maxLength"]] if "maxLength" in schema else text


_TEXTS: Final = (
    "x",
    "1",
    "a-b",
    "A",
    "AB",
    "ABC",
    "abc",
    "123",
    "1234",
    "12345",
    "a1",
    "A1",
    "AA-1",
    "2026-01-31",
    "#ffffff",
    "+49301234567",
)


def _number(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> Any:
    del document, depth
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", 1)
    if least is not None:
        value = least + (step if "exclusiveMinimum" in schema else 0)
        return value if value % step == 0 else value + step - value % step
    if most is not None and most < step:
        return most - (step if "exclusiveMaximum" in schema else 0)
    return step


def _null(*_: Any) -> Any:
    return None


_OF_TYPE: Final = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": lambda *_: True,
    "null": _null,
}


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    return json.dumps(value[0] if isinstance(value, list) and value else value)
