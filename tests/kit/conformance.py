"""Writes docs/conformance/README.md from the data files: ``python -m tests.kit.conformance``."""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from s2s_fastapi.testing.attack.cases import FILES, all_cases

__all__ = ["page"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance" / "README.md"
_CASES = "../../s2s_fastapi/testing/attack/cases"
_HEAD = """\
# The attack cases

Each case is data: whose good token an attacker takes, the one thing that is changed, the expected answer, and the source.
[The attack suite](../attack-suite.md) tries the cases on an app. The files are in
[s2s_fastapi/testing/attack/cases]({folder}), and so in the wheel. This page is written from them: `python -m tests.kit.conformance`.
[The conformance page](../conformance.md) has the same cases by what must hold, with what came of them behind four guards.

There are {entries} entries with {variants} cases. `line` is the line in [the list of attacks](../attacks.md).
These lines have no case: {missing}.
They need a server of their own, a socket, a setting or many requests. The tests of this package cover them.

## The language

[case.schema.json](case.schema.json) is the schema. A case begins with a good request: a token that the realm has signed for a caller that the
route permits, in one `Authorization: Bearer` header. If the route accepts only tokens that are bound to a key, the request has a bound
token under the scheme DPoP, and a good proof (RFC 9449). Then the members below take effect, in this order.

| Member | What it changes |
|---|---|
| `from` | the good token is of a `stranger` (another service of the realm) or of a `user` |
| `before` | first the realm changes, or time passes. With `seconds`, the same token was accepted before. With `sent`, the same request was accepted a moment ago |
| `where` | the routes on which the case is tried: `bearer` where bearer tokens are accepted, `no proofs` where no bound tokens are, `proofs` where bound tokens are: there the good token is bound to a key |
| `token.header`, `token.claims` | members that are set |
| `token.without_header`, `token.without_claims` | members that are left out |
| `token.algorithm` | another algorithm of the realm; `alg` and `kid` follow |
| `token.header_text`, `token.claims_text` | the text of the JSON: `${{json}}` is the object, `${{members}}` the object without its braces |
| `token.header_encoding`, `token.claims_encoding` | another encoding than UTF-8 |
| `token.signed_by` | `foreign`: a key that the realm does not publish. `further`: the key of another realm whose tokens the app accepts too |
| `token.signed_as` | the algorithm that signs, whatever `alg` says |
| `token.secret` | the form of the public key that is the secret of an HMAC |
| `token.header_part`, `token.claims_part`, `token.signature_part` | what is done to a part after the signature |
| `token.compact` | how the parts are joined |
| `proof` | the DPoP proof of the request, with the members of `token`. `foreign` is then an attacker's key for proofs |
| `request.authorization` | the values of all Authorization headers |
| `request.proofs` | the values of all DPoP headers |
| `request.headers`, `request.query`, `request.path` | what else is sent |

`each` makes variants: `${{each}}` is the value, and the id of the case is the entry, a dot and the name of the variant. Other variables are `issuer`,
`audience`, `client_id`, `leeway`, `kid`, `kid_es256`, `kid_foreign`, `kid_further`, `jwk_foreign`, `good` (the good token), `good_signature`, `token`, `path`, `path_of_public`,
`path_of_style`, `path_of_script`, `jwks_foreign` (where the attacker serves its keys) and `public` (a public path of the app). A case with `where: proofs` also has `proof`, `good_proof`, `method`, `method_in_lower_case`,
`another_method`, `url` (what `htu` must be), `url_of_another_host` and others like it, `path_alone`, `ath_of_another_token`, `jwk`, `jwk_private` and `jkt_foreign`; its
`jwk_foreign` is a key for proofs. An object with one member that begins with a dollar sign is a function:

| Function | Value |
|---|---|
| `{{"$now": 300}}` | the second that is 300 seconds from now |
| `{{"$past": 31}}`, `{{"$future": 31}}` | the second that is 31 seconds beyond the app's tolerance for clocks |
| `{{"$string": 1}}` | the number as text |
| `{{"$repeat": ["ab", 3]}}` | `ababab` |
| `{{"$slice": ["orders", 0, -1]}}` | `order` |
| `{{"$replace": ["http://x", "http:", "https:"]}}` | `https://x` |
| `{{"$upper": "x"}}` | `X` |
| `{{"$join": ["a", "b"]}}` | `ab` |

`every_route` marks the one case of each kind that is tried on every route. `only_here` marks what only this package promises to refuse: the realm
itself signed such a token for this caller, so a guard that accepts it is lenient, not open.
"""


def page() -> str:
    """Return the page."""
    cases = all_cases()
    lines = {case.line for case in cases}
    head = _HEAD.format(
        folder=_CASES,
        entries=len({case.entry for case in cases}),
        variants=len(cases),
        missing=", ".join(str(line) for line in range(1, 43) if line not in lines),
    )
    return "\n".join([head, *(line for name in FILES for line in _file(name))])


def _file(name: str) -> Iterator[str]:
    text = files("s2s_fastapi.testing.attack").joinpath("cases").joinpath(f"{name}.json").read_text("utf-8")
    yield f"## {name.replace('-', ' ').capitalize()}"
    yield ""
    yield f"[{name}.json]({_CASES}/{name}.json)"
    yield ""
    yield "| case | line | kind | what is sent | expected | source |"
    yield "|---|---|---|---|---|---|"
    for entry in json.loads(text)["cases"]:
        yield _row(entry)
    yield ""


def _row(entry: dict[str, Any]) -> str:
    variants = f" ({len(entry['each'])})" if "each" in entry else ""
    expect = entry["expect"]
    cells = (
        f"`{entry['id']}`{variants}",
        str(entry["line"]),
        entry["kind"],
        entry["title"],
        f"{expect['status']} `{expect['reason']}`",
        "; ".join(entry["source"]),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
