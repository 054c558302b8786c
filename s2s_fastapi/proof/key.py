"""The key of a caller and the proofs that it makes (RFC 9449 section 4.2). It lives in the memory of one process and nowhere else."""

import hashlib
import json
import secrets
from typing import Any, Final, NoReturn, Self

from s2s_fastapi.jose.keys import public_members, thumbprint
from s2s_fastapi.process import watch_forks
from s2s_fastapi.proof.header import TYPE
from s2s_fastapi.text import base64url

__all__ = ["ProofKey"]

_ALGORITHM: Final = "ES256"
_JTI_BYTES: Final = 16
_as_json: Final = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps would make one for each proof
_SECURE: Final = {"ws": "http", "wss": "https"}


class ProofKey:
    """A new P-256 key. Tokens that are bound to it can be used only by this process.

    - A forked child cannot use it: two processes must not share a key. A token that is bound to it is lost there too.
    - It cannot be pickled. A copy of it is the same object.
    - The private key is in no ``repr``, exception or log.
    """

    __slots__ = ("__weakref__", "_header", "_private", "_sign", "thumbprint")

    thumbprint: str
    """RFC 7638, in base64url: what ``cnf.jkt`` of a token says that is bound to this key (RFC 9449 section 6.1)."""

    def __init__(self) -> None:
        """Make the key: some tens of microseconds, and the import of the library if it is the first one."""
        from joserfc.jwk import ECKey  # noqa: PLC0415 - a fifth of our import time
        from joserfc.jws import JWSRegistry  # noqa: PLC0415

        self._private: Any = ECKey.generate_key("P-256")  # Any: the types of joserfc are imported with it
        members = public_members(_ALGORITHM, self._private.as_dict(private=False))
        self._sign = JWSRegistry.algorithms[_ALGORITHM].sign
        self._header = _part({"typ": TYPE, "alg": _ALGORITHM, "jwk": members})
        self.thumbprint = thumbprint(members)
        watch_forks(self)

    @property
    def usable(self) -> bool:
        """Whether it still makes proofs: not in a child that was forked after it was made."""
        return self._private is not None

    def proof(self, method: str, url: str, *, now: float, token: str = "", nonce: str = "") -> str:
        """Return a new proof for one request, as the value of its DPoP header.

        - ``htm`` is `method` as it is sent. ``htu`` is `url` as it is called, without query and fragment (RFC 9449 section 4.2); ``wss`` becomes
          ``https``, because a WebSocket begins as a GET request.
        - ``iat`` is `now` in whole seconds. ``jti`` has 128 random bits.
        - ``ath`` binds the proof to `token`, if one is given: always, except at the token endpoint. ``nonce`` is there if `nonce` is.

        Raises:
            ValueError: `url` has user information; a proof would show the password.
            RuntimeError: The process was forked after the key was made.
        """
        private = self._private
        if private is None:
            raise RuntimeError(
                "This key was made before the process was forked. Make a new one, and request a new token with it."
            )
        claims: dict[str, Any] = {
            "jti": base64url(secrets.token_bytes(_JTI_BYTES)),
            "htm": method,
            "htu": _called(url),
            "iat": int(now),
        }
        if token:
            claims["ath"] = base64url(hashlib.sha256(token.encode()).digest())
        if nonce:
            claims["nonce"] = nonce
        signing_input = f"{self._header}.{_part(claims)}"
        return f"{signing_input}.{base64url(self._sign(signing_input.encode('ascii'), private))}"

    def after_fork(self) -> None:
        """Forget the private key; called in the child."""
        self._private = None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A proof key cannot be pickled: it stays in its process.")

    def __repr__(self) -> str:
        return f"ProofKey({self.thumbprint})"


def _part(members: dict[str, Any]) -> str:
    return base64url(_as_json(members).encode())


def _called(url: str) -> str:
    place = url.partition("#")[0].partition("?")[0]
    scheme, mark, rest = place.partition("://")
    if "@" in rest.partition("/")[0]:
        raise ValueError("a user name or password does not belong in the URL of a proof")
    path = (
        "" if "/" in rest else "/"
    )  # what is sent for an empty one; not every receiver normalises (RFC 3986 section 6.2.3)
    return f"{_SECURE.get(scheme.lower(), scheme)}{mark}{rest}{path}"
