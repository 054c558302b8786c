"""The realm seen from outside."""
