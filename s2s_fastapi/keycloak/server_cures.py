"""What to change if Keycloak's server gives no keys or no token. Receiver and caller say it with the same words.

The sentences name the settings. They repeat nothing that the server wrote.
"""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from s2s_fastapi.backchannel.channel import CLIENT_CERTIFICATE, BackChannelError, Reply, unused_proxy
from s2s_fastapi.text import named

__all__ = ["answer_cure", "said_by", "unreachable_cure"]

# What OpenSSL says, version by version, if the other end answers in plain text.
_PLAIN_HTTP: Final = re.compile("TLS failed: (WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG)")
_NOT_HTTP: Final = "the answer is not HTTP"
_CERTIFICATE: Final = "certificate"
_NOT_ACCEPTED: Final = (
    "Let Keycloak trust the authority that issued it (--truststore-paths; or what a proxy before Keycloak trusts), or set KEYCLOAK_CLIENT_CERT_FILE to a"
    " certificate of an authority that it trusts, followed by those between the two. Look at its dates, too. A new try without a change cannot help."
)
_WANTED: Final = "Set KEYCLOAK_CLIENT_CERT_FILE and KEYCLOAK_CLIENT_CERT_KEY_FILE, or start Keycloak with --https-client-auth=request instead of required."
_CERTIFICATES: Final = (
    (
        "has expired",
        "Renew the certificate of Keycloak, or of the proxy in front of it. If it is still valid, the clock of this host is wrong.",
    ),
    ("not yet valid", "Compare the clock of this host with that of Keycloak: its certificate begins later."),
    (
        "mismatch",
        "Set KEYCLOAK_URL to a name that is in the certificate, or issue a certificate for this name.",
    ),
    (
        "key usage",
        "Make its authority again, with the extension keyUsage=critical,keyCertSign (`openssl req -x509 -addext`): Python 3.13 wants it.",
    ),
    (
        "self-signed",
        "Set KEYCLOAK_CA_FILE to it, or to that of its authority: a proxy that opens TLS has one of its own.",
    ),
    (
        "issuer certificate",
        "Set KEYCLOAK_CA_FILE to the certificate of the authority that signed it, and let Keycloak send the whole chain.",
    ),
)
"""What OpenSSL says of a certificate that it does not trust, and what to change."""
_NOT_FOUND: Final = 404
_SERVER_ERROR: Final = 500


def answer_cure(url: str, status: int, said: str) -> str:
    """Return what to change if a realm's page answers with this status, or nothing if that is not known.

    `said` is the server's own error in lower case. It decides before the status, which differs between versions of Keycloak.
    """
    server, _, rest = url.rpartition("/realms/")
    realm = named(unquote(rest.partition("/")[0]))
    if "realm does not exist" in said:
        return f"Set KEYCLOAK_REALM to the realm's name, letter by letter: there is no realm {realm} on {server}."
    if "unable to find matching target resource method" in said:
        return _path_cure(server)
    if "missingnormalization" in said:
        return "Remove double slashes from KEYCLOAK_URL and KEYCLOAK_AUTH_PATH."
    if "realm not enabled" in said:
        return f"Enable the realm {realm} in Keycloak (Realm settings)."
    if "https required" in said:
        return "Use https in KEYCLOAK_URL, or change “Require SSL” of the realm in Keycloak (Realm settings, General)."
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own border
        return "Set KEYCLOAK_URL to the address that it redirects to: redirects are not followed."
    if said:
        return ""
    if status == _NOT_FOUND:  # also what a server under /auth answers outside of that path
        return f"{_path_cure(server)} If that is right, KEYCLOAK_URL does not point at a Keycloak."
    if status < _SERVER_ERROR:
        return "Set KEYCLOAK_URL: it does not point at a Keycloak, or a proxy in front of Keycloak answers."
    return ""


def said_by(reply: Reply) -> str:
    """Return the server's own error in lower case. It is only compared, never repeated."""
    try:
        body = reply.json_object()
    except BackChannelError:
        return ""
    return " ".join(str(body.get(name, "")) for name in ("error", "error_description")).strip().lower()


def unreachable_cure(url: str, problem: str = "", *, proxied: bool = False) -> str:
    """Return what to change if there was no answer from `url`, or none that can be read.

    `problem` is what the back channel said. `proxied` says that ``KEYCLOAK_PROXY`` is in use.
    """
    if CLIENT_CERTIFICATE in problem:
        return _WANTED if "showed none" in problem else _NOT_ACCEPTED
    if _PLAIN_HTTP.search(problem):
        return "The port answers in plain http: write http:// in KEYCLOAK_URL, or use Keycloak's port for https."
    for said, certificate in _CERTIFICATES:
        if _CERTIFICATE in problem and said in problem.lower():
            return certificate
    setting = "KEYCLOAK_URL or KEYCLOAK_CA_FILE" if _CERTIFICATE in problem else "KEYCLOAK_URL"
    cure = f"Is Keycloak up at {url.rpartition('/realms/')[0]}, and is {setting} right for this process?"
    if _NOT_HTTP in problem and url.startswith("http:"):
        cure += " If the port is one for https, write https:// in KEYCLOAK_URL."
    unused = "" if proxied else unused_proxy(url)
    if unused:
        cure += f" {unused} is set, but it is not used: if Keycloak is reached through a proxy, set KEYCLOAK_PROXY."
    return cure


def _path_cure(server: str) -> str:
    path = urlsplit(server).path
    if path:
        return f"The server does not run under {path}: correct KEYCLOAK_AUTH_PATH, or the path in KEYCLOAK_URL."
    return "Set KEYCLOAK_AUTH_PATH=/auth if the server runs under /auth."
