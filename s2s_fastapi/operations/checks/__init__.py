"""What `s2s-fastapi doctor` looks at, one function for each check: `table` has them in their order.

`client` and `grants` need an administrator's rights.
"""
