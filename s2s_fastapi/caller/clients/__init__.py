"""The token for clients other than httpx: one module for each package, imported when its method is called."""
