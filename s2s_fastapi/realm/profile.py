"""Which users have something left to do before their first login: what Keycloak checks when a user logs in with a password."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

__all__ = ["Profile"]

_Representation = Mapping[str, Any]

_PROVIDER: Final = "org.keycloak.userprofile.UserProfileProvider"
_USUAL: Final[_Representation] = {
    "attributes": [
        {"name": "username", "validations": {"username-prohibited-characters": {}}},
        {"name": "email", "required": {"roles": ["user"]}, "validations": {"email": {}}},
        *(
            {"name": name, "required": {"roles": ["user"]}, "validations": {"person-name-prohibited-characters": {}}}
            for name in ("firstName", "lastName")
        ),
    ]
}
_EMAIL: Final = re.compile(r"[^\s@<>()\[\],;:\\\"]{1,64}@[^\s@<>()\[\],;:\\\"]{1,255}")
_IN_NAMES: Final = re.compile(r"[<>&\"\v$%!#?§;*~/\\|^=\[\]{}()\x00-\x1f\x7f]")
_VALID: Final[Mapping[str, Callable[[str], bool]]] = {
    "email": lambda value: _EMAIL.fullmatch(value) is not None,
    "person-name-prohibited-characters": lambda value: _IN_NAMES.search(value) is None,
    "username-prohibited-characters": lambda _value: True,  # Keycloak does not check it for users who are there
    "up-username-not-idn-homograph": lambda _value: True,
    "length": lambda _value: True,
    "multivalued": lambda _value: True,
}


class Profile:
    """The realm's rules for users (rule 32)."""

    def __init__(self, document: _Representation) -> None:
        actions = document.get("requiredActions")
        self._verified = actions is None or any(
            action.get("alias") == "VERIFY_PROFILE" and action.get("enabled") for action in actions
        )
        self._verifies_email = bool(document.get("verifyEmail"))
        self._attributes = list(_configured(document) or _USUAL["attributes"])

    def is_complete(self, user: _Representation) -> bool:
        """Return whether the user can log in at once."""
        if user.get("requiredActions"):  # a temporary password is no obstacle: the import makes it a lasting one
            return False
        if self._verifies_email and not user.get("emailVerified"):
            return False
        return not self._verified or all(self._satisfied(attribute, user) for attribute in self._attributes)

    def unknown(self) -> Iterator[str]:
        """Yield the attributes whose validations are not known here."""
        for attribute in self._attributes if self._verified else ():
            if (attribute.get("validations") or {}).keys() - _VALID.keys():
                yield str(attribute.get("name"))

    @staticmethod
    def _satisfied(attribute: _Representation, user: _Representation) -> bool:
        name = str(attribute.get("name"))
        own = user.get(name) if name in {"username", "email", "firstName", "lastName"} else None
        value = own or (user.get("attributes") or {}).get(name)
        values = [str(one) for one in (value if isinstance(value, list) else [value]) if one]
        required = attribute.get("required")
        if not values:
            # Required for administrators only, or with a scope, is not required here.
            roles = (required or {}).get("roles") or []
            return required is None or bool(required.get("scopes")) or (bool(roles) and "user" not in roles)
        checks = (_VALID[kind] for kind in attribute.get("validations") or {} if kind in _VALID)
        return all(check(value) for check in checks for value in values)


def _configured(document: _Representation) -> list[_Representation] | None:
    for component in (document.get("components") or {}).get(_PROVIDER) or ():
        for text in (component.get("config") or {}).get("kc.user.profile.config") or ():
            attributes: list[_Representation] = json.loads(text).get("attributes") or []
            return attributes
    return None
