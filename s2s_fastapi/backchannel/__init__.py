"""Bounded exchanges with Keycloak over HTTP."""
