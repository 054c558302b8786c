"""The settings of a service as one frozen value: the address of Keycloak, its own client, and its audiences."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, PrivateAttr, Secret, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.names import (
    EVERYBODYS_AUDIENCE,
    NO_URL_CHARACTER,
    listed_names,
    name_problem,
    realm_segment,
    url_problem,
)
from s2s_fastapi.text import printable

__all__ = ["KeycloakSettings", "ProxyUrl"]

_PREFIX: Final = "KEYCLOAK_"
_PLACE: Final = ("url", "issuer", "realm")
"""The settings that choose the realm. If code sets one of them, nothing is taken from the environment."""
_SHOWN: Final = 80
_IN_CODE: Final = (
    "If code sets url, issuer or realm, nothing is taken from the environment: set the other values in code too."
)
_CREDENTIALS: Final = (
    "client_secret",
    "client_secret_file",
    "client_key_file",
    "client_assertion_file",
    "client_cert_file",
    "client_cert_key_file",
)
_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "private_key_jwt": ("client_key_file", "signs with the key there"),
    "federated_jwt": ("client_assertion_file", "sends the token there"),
    "tls_client_auth": ("client_cert_file", "shows the certificate there"),
}
"""For each client authentication without a secret: the file that it needs, and what it does with it."""
_PREFIXES: Final = re.compile("[A-Za-z][A-Za-z0-9_]*_")
_PROXY: Final = re.compile(  # without a path; the user information is that of RFC 3986 section 3.2.1
    r"(?P<scheme>https?)://(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*@)?(?P<address>[^/@]*)/?", re.IGNORECASE
)
_PLACEHOLDER: Final = re.compile(r"\s*(?:(?:\$+(?:\{[^{}]*\}|\([^()]*\))|\{\{[^{}]*\}\})\s*)+")
"""A text of only placeholders: ``${NAME}`` and ``$(NAME)`` of shells and Keycloak, ``{{ NAME }}`` of templates."""


class ProxyUrl(Secret[str]):
    """The URL of a proxy. It is shown without its user name and password."""

    def _display(self) -> str:
        scheme, separator, rest = self.get_secret_value().partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"

    def __copy__(self) -> Self:
        return self  # immutable

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # It would be pickled in clear text, and pickles travel over networks and into logs of message brokers.
        if "@" in self.get_secret_value():
            raise TypeError(
                "The URL of a proxy with a password is not pickled: let the other process read its own environment"
            )
        return type(self), (self.get_secret_value(),)


class _Merged(BaseModel):
    """A base class after `BaseSettings`, which calls it with the values of all sources, before any validator."""

    _unchanged: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, **merged: Any) -> None:
        super().__init__(**merged)
        super().__setattr__("_unchanged", self._said_in(merged))

    def _said_in(self, values: Mapping[str, Any]) -> frozenset[str]:
        """Return the names of the fields whose value comes from `values`, under their own name or an alias."""
        aliased = {_plain(value) for name, value in values.items() if name not in type(self).model_fields}
        return frozenset(
            name
            for name in self.model_fields_set
            if (name in values and _plain(getattr(self, name)) == _plain(values[name]))
            or _plain(getattr(self, name)) in aliased
        )


class KeycloakSettings(BaseSettings, _Merged):
    """Read the settings of one service in one realm from ``KEYCLOAK_*`` variables, or take them as keyword arguments.

    - Every field is the variable of the same name in upper case (``url`` is ``KEYCLOAK_URL``). An argument overrides the variable.
    - **If `url`, `issuer` or `realm` is an argument, nothing is taken from the environment**: the secret of one realm must not be
      sent to the Keycloak of another.
    - The value is frozen and hashable, and its ``repr`` shows no secret.
    - ``issuer`` and ``audiences`` are derived only here; URLs below the realm are in `s2s_fastapi.keycloak.endpoints`.

    Raises:
        ConfigurationError: A value is missing, malformed or contradicts another; the sentence names the variable to set.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True
    )

    url: str = ""
    """The address at which this process reaches Keycloak, without ``/realms/...``."""
    public_url: str = ""
    """The address in ``iss``, if it differs from ``url``."""
    auth_path: str = ""
    """``/auth`` if the server runs under that path."""
    realm: str = ""
    name: str = ""
    """What requirements call this realm: ``realm="partners"``. By default the name that it has in Keycloak."""
    issuer: str = ""
    """The exact ``iss``. Overrides the issuer built from the URLs; if ``url`` is not set, Keycloak is also contacted at this address."""
    client_id: str = ""
    client_secret: SecretStr | None = None
    client_secret_file: Path | None = None
    """A file with the secret; read again if Keycloak refuses the old one."""
    client_key_file: Path | None = None
    """A file with the private key for ``private_key_jwt``, PEM or JWK; read for every token request."""
    client_assertion_file: Path | None = None
    """A file with the token of another issuer for ``federated_jwt``, such as that of a Kubernetes service account; read for every token request."""
    client_cert_file: Path | None = None
    """A PEM file with the client certificate for ``tls_client_auth`` and for certificate-bound tokens; read again if it changes."""
    client_cert_key_file: Path | None = None
    """A PEM file with the private key of the certificate, if it is not in the same file."""
    client_auth: Literal[
        "client_secret_basic", "client_secret_post", "private_key_jwt", "federated_jwt", "tls_client_auth"
    ] = "client_secret_basic"
    audience: Annotated[tuple[str, ...], NoDecode] = ()
    """The audiences that this service accepts; its client id by default. A comma-separated list in the environment; in code a text is one name."""
    ca_file: Path | None = None
    """A PEM file with certificates to trust for Keycloak, besides those of the system."""
    proxy: ProxyUrl | None = None
    """A proxy for requests to Keycloak. ``HTTP_PROXY`` and ``HTTPS_PROXY`` are not used."""
    dpop: bool = False
    """Whether the tokens of this service are bound to a key of its own, and each call carries a proof (RFC 9449)."""
    leeway: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 30.0
    """Seconds by which clocks may differ."""

    _prefix: str = PrivateAttr(default=_PREFIX)
    _in_code: bool = PrivateAttr(default=False)

    def __init__(self, **values: Any) -> None:
        prefix = values.get("_env_prefix") or self.model_config["env_prefix"]
        in_code = self._named_in_code(values)
        if isinstance(values.get("audience"), str):  # only variables hold lists as text
            values["audience"] = (values["audience"],)
        try:
            super().__init__(**values)
        except ValidationError as error:
            sentences = [_sentence(dict(detail)) for detail in error.errors(include_url=False, include_input=False)]
        else:
            arguments = self._said_in(values)
            in_code = in_code or any(
                name in arguments or name not in self._unchanged for name in self.model_fields_set.intersection(_PLACE)
            )
            taken = [name for name in _CREDENTIALS if name in self._unchanged - arguments]
            super().__setattr__("_prefix", prefix)
            super().__setattr__("_in_code", in_code)
            super().__setattr__("_unchanged", frozenset())
            if not (in_code and taken):
                return
            sentences = [
                f"{_PREFIX}{taken[0].upper()} belongs to another realm: url, issuer or realm was set in code. {_IN_CODE}"
            ]
        # Outside the except block: the error of pydantic contains the input, and so the secret.
        if in_code and any(sentence.startswith("Set ") for sentence in sentences):  # something is missing
            sentences.append(_IN_CODE)
        raise ConfigurationError(" ".join(sentences).replace(_PREFIX, prefix))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is that of pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the environment out if the arguments choose the realm."""
        return (init_settings,) if cls._named_in_code(init_settings()) else (init_settings, env_settings)

    @classmethod
    def _named_in_code(cls, values: Mapping[str, Any]) -> bool:
        fields = [cls.model_fields[name] for name in _PLACE]
        # A subclass may have defaults. It may also make a field required: then there is none.
        by_default = any(not field.is_required() and (field.default or field.default_factory) for field in fields)
        return by_default or any(name in values for name in _PLACE)

    @classmethod
    def from_environment(cls, *, prefix: str = _PREFIX) -> Self:
        """Read the settings of a second realm from its own variables: ``PARTNERS_URL``, ``PARTNERS_REALM`` for the prefix ``PARTNERS_``.

        Raises:
            ConfigurationError: as the class; the sentence names the variables with this prefix. Or the prefix is invalid.
        """
        if not _PREFIXES.fullmatch(str(prefix)):
            raise ConfigurationError(
                'prefix= must end with an underscore and be the beginning of the names of variables: prefix="PARTNERS_" reads PARTNERS_URL,'
                " PARTNERS_REALM and so on. It may have letters, digits and underscores, and begins with a letter."
            )
        return cls(_env_prefix=prefix.upper())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy. With `update` it is validated again; with another `url`, `issuer` or `realm` no other value is kept.

        Raises:
            ConfigurationError: as the class.
        """
        if not update:
            return super().model_copy(deep=deep)
        elsewhere = self._named_in_code(update)
        kept = {} if elsewhere else {name: getattr(self, name) for name in self.model_fields_set}
        made = type(self)(_env_prefix=self._prefix, **kept | dict(update))
        if not elsewhere:  # its values still come from the variables
            super(KeycloakSettings, made).__setattr__("_in_code", self._in_code)
        return made

    def copy(self, *, include: Any = None, exclude: Any = None, update: Any = None, deep: bool = False) -> Self:
        """Do as `model_copy`: the deprecated `copy` of pydantic would validate nothing.

        Raises:
            ConfigurationError: as `model_copy`; or only some of the settings are to be copied.
        """
        if include is not None or exclude is not None:
            raise ConfigurationError(
                "Settings can only be copied as a whole: make new ones with the values that you want."
            )
        return self.model_copy(update=update, deep=deep)

    def worded(self, sentence: str) -> str:
        """Return a sentence with the prefix of these settings in the names of its variables."""
        return sentence.replace(_PREFIX, self._prefix)

    def missing(self, sentence: str) -> str:
        """Return a sentence about a missing value; it says so if the environment was not read."""
        return f"{sentence} {_IN_CODE}" if self._in_code else self.worded(sentence)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        # The error of pydantic would show the value, which may be a secret.
        raise AttributeError(f"KeycloakSettings is frozen: make another one with {name}=...")

    def __getstate__(self) -> dict[Any, Any]:
        # SecretStr pickles in clear text, and pickles travel over networks and into logs. Copies do not use this method.
        if self.client_secret is not None:
            raise TypeError(
                "Settings with a client secret are not pickled: let the other process read its own environment,"
                " or use KEYCLOAK_CLIENT_SECRET_FILE"
            )
        if self.proxy is not None and "@" in self.proxy.get_secret_value():
            raise TypeError(
                "Settings with the password of a proxy are not pickled: let the other process read its own environment"
            )
        return super().__getstate__()

    @property
    def audiences(self) -> frozenset[str]:
        """The audiences that this service accepts; empty if neither ``audience`` nor ``client_id`` is given."""
        return frozenset(self.audience or ((self.client_id,) if self.client_id else ()))

    @property
    def server(self) -> str:
        """The address at which this process reaches Keycloak, with ``auth_path``, without a slash at the end."""
        return self.url + self.auth_path

    def secret(self) -> str:
        """Return the client secret; if it is in a file, its current content.

        Raises:
            ConfigurationError: There is no secret, its file cannot be read, or the content is not a secret.
        """
        if self.client_secret is not None:
            return self.client_secret.get_secret_value()
        if self.client_secret_file is None:
            raise ConfigurationError(
                self.missing(
                    "Set KEYCLOAK_CLIENT_SECRET or KEYCLOAK_CLIENT_SECRET_FILE: calling other services needs it."
                )
            )
        try:
            # Opening a pipe could block a worker thread for ever.
            pipe = self.client_secret_file.is_fifo()
            # Editors and `echo` end a file with a line break; secrets of Keycloak contain none.
            text = "" if pipe else self.client_secret_file.read_text(encoding="utf-8").rstrip("\r\n")
            problem = " is a pipe, which can be read only once: write a file" if pipe else _secret_problem(text)
            problem = f": the secret in the file {problem}" if problem and not pipe else problem
        except (OSError, UnicodeDecodeError) as error:
            text, problem = "", f" cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})"
        if problem:
            said = self.worded("KEYCLOAK_CLIENT_SECRET_FILE")
            text = ""  # this frame's locals are recorded by error trackers
            raise ConfigurationError(f"{said}: {self.client_secret_file}{problem}.")
        return text

    @field_validator("url", "public_url", "issuer", mode="before")
    @classmethod
    def _absolute_url(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value:  # validators run for values that were given, not for defaults
            _wrong("is set but empty: give a URL or remove it.")
        problem = _url_problem(value)
        if problem:
            _wrong(f"must be an absolute http or https URL such as https://sso.example.com: {problem}.")
        if info.field_name == "issuer":
            return value  # exact, a slash at the end included
        if "/realms/" in f"{value}/":
            _wrong("is the address of the server: leave /realms/... out and set KEYCLOAK_REALM.")
        return value.rstrip("/")

    @field_validator("auth_path")
    @classmethod
    def _path(cls, value: str) -> str:
        path = value.rstrip("/")
        if path and (not path.startswith("/") or _url_problem(f"https://host{path}")):
            _wrong("must be a path such as /auth, or empty.")
        return path

    @field_validator("realm", "name", "client_id")
    @classmethod
    def _name(cls, value: str, info: Any) -> str:
        if not value:
            _wrong("is set but empty.")
        problem = name_problem(value)
        if not problem and info.field_name in ("realm", "name") and not _one_segment(value):
            problem = "it cannot be one segment of a path"
        if problem:
            _wrong(f"must be a name, without slashes or spaces around it: {problem}.")
        return value

    @field_validator("client_secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value():
            _wrong("is set but empty.")
        problem = _secret_problem(value.get_secret_value()) if value is not None else ""
        if problem:
            _wrong(f"{problem}.")
        return value

    @field_validator("proxy", mode="before")
    @classmethod
    def _proxy(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, Secret) else value
        if not isinstance(text, str):
            return value
        if not text:
            _wrong("is set but empty: give a URL or remove it.")
        parts = _PROXY.fullmatch(text)
        if parts is None:
            problem = "it is not scheme://host:port, or has a character in its user name or password that must be percent-encoded"
        else:
            problem = _url_problem(f"{parts['scheme']}://{parts['address']}")
        if problem:
            _wrong(f"must be the URL of an http or https proxy such as http://proxy.example.com:3128: {problem}.")
        return text

    @field_validator(
        "client_secret_file",
        "client_key_file",
        "client_assertion_file",
        "client_cert_file",
        "client_cert_key_file",
        "ca_file",
        mode="before",
    )
    @classmethod
    def _file(cls, value: Any) -> Any:
        if value == "":  # Path("") would be the working directory
            _wrong("is set but empty.")
        return value

    @field_validator("audience", mode="before")
    @classmethod
    def _audiences(cls, value: Any) -> tuple[str, ...]:
        names = listed_names(value) if isinstance(value, str) else value
        if not isinstance(names, list | tuple | set | frozenset) or not names:
            _wrong("must be one or more names separated by commas, none of them empty, or a JSON list of them.")
        for name in names:
            if problem := name_problem(name):
                _wrong(f"must be one or more names: {printable(repr(name), _SHOWN)} is not one: {problem}.")
        if EVERYBODYS_AUDIENCE in names:
            _wrong('cannot be "account": nearly every token of a realm carries it. Use the client id of this service.')
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        fill: dict[str, str] = {}
        server, realm = _split_issuer(self.issuer)
        if not self.url:
            if not self.issuer:
                missing = " and ".join(_PREFIX + name.upper() for name in ("url", "realm") if not getattr(self, name))
                _wrong(f"Set {missing} (or KEYCLOAK_ISSUER alone): it is unknown where Keycloak is.")
            if not realm:
                _wrong("KEYCLOAK_ISSUER does not end in /realms/NAME: set KEYCLOAK_URL and KEYCLOAK_REALM as well.")
            fill["url"] = server.removesuffix(self.auth_path) if self.auth_path else server
        if not (self.realm or realm):
            _wrong("Set KEYCLOAK_REALM: the name of the realm this service belongs to.")
        if self.realm and realm and self.realm != realm:
            _wrong(f"KEYCLOAK_REALM is {self.realm!r}, but KEYCLOAK_ISSUER names the realm {realm!r}: make them agree.")
        fill["realm"] = self.realm or realm
        if not self.name:
            fill["name"] = fill["realm"]
        given = self.model_fields_set.intersection(("url", "issuer"))
        if (
            len(given) == 1
            and self.url
            and self.issuer
            and _host(self.issuer) not in map(_host, (self.url, self.public_url))
        ):
            _wrong(
                f"The issuer is at {_host(self.issuer)}, and the keys would come from {_host(self.url)}: whoever runs that server could sign "
                f"tokens of this issuer. Give KEYCLOAK_URL and KEYCLOAK_ISSUER together, or set KEYCLOAK_PUBLIC_URL."
            )
        for name in ("url", "public_url"):
            if self.auth_path and getattr(self, name).endswith(self.auth_path):
                _wrong(
                    f"{_PREFIX}{name.upper()} already ends in {self.auth_path}: give it there or in KEYCLOAK_AUTH_PATH, not in both."
                )
        self._one_way_to_authenticate()
        if self.client_id == EVERYBODYS_AUDIENCE and not self.audience:
            _wrong('KEYCLOAK_CLIENT_ID cannot be "account": nearly every token of a realm carries that audience.')
        if not self.issuer:
            public = self.public_url or self.url
            fill["issuer"] = f"{public}{self.auth_path}/realms/{realm_segment(fill['realm'])}"
        for name, value in fill.items():
            object.__setattr__(self, name, value)  # frozen for all other code; derived once, here
        return self

    def _one_way_to_authenticate(self) -> None:
        secret = self.client_secret is not None or self.client_secret_file is not None
        if self.client_secret is not None and self.client_secret_file is not None:
            _wrong("KEYCLOAK_CLIENT_SECRET and KEYCLOAK_CLIENT_SECRET_FILE are both set: keep one.")
        if self.client_cert_key_file is not None and self.client_cert_file is None:
            _wrong("Set KEYCLOAK_CLIENT_CERT_FILE: KEYCLOAK_CLIENT_CERT_KEY_FILE is only the key of a certificate.")
        if not self.client_id:
            self._no_client_for(
                ("a client secret", secret),
                ("a key of a client", self.client_key_file),
                ("a token that proves a client", self.client_assertion_file),
                ("a certificate of a client", self.client_cert_file),
            )
        method = self.client_auth
        needed, use = _FILES.get(method, ("", ""))
        if needed and secret:
            _wrong(f"KEYCLOAK_CLIENT_AUTH is {method}, and there is a client secret: remove the one that is not meant.")
        for other, (name, _) in _FILES.items():
            # A certificate may stand beside any method: tokens are bound to it.
            if name in (needed, "client_cert_file") or getattr(self, name) is None:
                continue
            if needed:
                _wrong(
                    f"KEYCLOAK_CLIENT_AUTH is {method}, and {_PREFIX}{name.upper()} is for {other}: remove the one that is not meant."
                )
            _wrong(f"Set KEYCLOAK_CLIENT_AUTH={other}: {_PREFIX}{name.upper()} is used by nothing else.")
        if needed and getattr(self, needed) is None:
            _wrong(f"Set {_PREFIX}{needed.upper()}: KEYCLOAK_CLIENT_AUTH is {method}, which {use}.")
        if method == "tls_client_auth" and not (self.url or self.issuer).lower().startswith("https:"):
            _wrong(
                f"{_PREFIX}{'URL' if self.url else 'ISSUER'} is http, and KEYCLOAK_CLIENT_AUTH is tls_client_auth: a certificate is shown"
                " only over TLS. Give an https URL."
            )

    def _no_client_for(self, *credentials: tuple[str, object]) -> None:
        for what, given in credentials:
            if given:
                _wrong(f"Set KEYCLOAK_CLIENT_ID: there is {what}, but no client.")


def _secret_problem(text: str) -> str:
    """Return what is wrong with a secret. Keycloak would refuse it without a reason."""
    if not text:
        return "is empty"
    if text.endswith(("\n", "\r")):
        return "ends in a line break: leave it out"
    if text.startswith(("\ufeff", "\xef\xbb\xbf")):
        return "starts with a byte order mark: save it without one"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        return "is in quotes: remove them"
    if _PLACEHOLDER.fullmatch(text):
        return (
            "is a placeholder that was not replaced: write the secret itself. If the client's secret in Keycloak is this placeholder too,"
            " everybody who can read the realm file knows it (an import with the Admin API replaces no placeholders): make a new secret"
        )
    return ""


def _plain(value: Any) -> str:
    """Return a value as text, to compare a source with the resulting field."""
    text = value.get_secret_value() if isinstance(value, Secret | SecretStr) else value
    return str(text).strip().rstrip("/")


def _wrong(sentence: str) -> NoReturn:
    raise PydanticCustomError("keycloak_settings", "{sentence}", {"sentence": sentence})


def _sentence(detail: dict[str, Any]) -> str:
    name = _PREFIX + str(detail["loc"][0]).upper() if detail["loc"] else ""
    kind, text = detail["type"], str(detail["msg"])
    if kind == "extra_forbidden":
        return f"There is no setting {detail['loc'][0]!r}."
    if kind == "keycloak_settings":
        return f"{name} {text}".strip()
    return f"{name}: {text.rstrip('.')}."


def _url_problem(url: str) -> str:
    """Return why `url` cannot be an address of Keycloak, or ""."""
    problem = url_problem(url) if url.isascii() else NO_URL_CHARACTER
    if not problem:
        path = urlsplit(url).path
        if "//" in path or ".." in path or ";" in path:
            problem = "Keycloak refuses paths with //, .. or ;"
    return problem


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _split_issuer(issuer: str) -> tuple[str, str]:
    server, separator, segment = issuer.rpartition("/realms/")
    realm = unquote(segment)
    return (server, realm) if separator and realm and _one_segment(realm) else ("", "")


def _one_segment(realm: str) -> bool:
    return set(realm).isdisjoint("/\\?#") and realm not in {".", ".."}
