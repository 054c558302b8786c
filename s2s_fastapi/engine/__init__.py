"""A value that is loaded, kept fresh and shared: it knows no Keycloak, no HTTP and no telemetry."""
