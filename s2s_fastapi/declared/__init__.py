"""What an app declares, read from its routes, and checked before it serves."""
