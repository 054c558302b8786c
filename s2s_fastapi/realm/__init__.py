"""The realm model: what Keycloak puts into a token, computed from a realm file."""
