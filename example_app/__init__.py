"""The stories as small services, each role one file to copy."""
