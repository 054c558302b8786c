"""Service-to-service authentication for FastAPI and Starlette with Keycloak."""
