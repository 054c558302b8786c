"""Bounded requests to Keycloak over HTTP."""
