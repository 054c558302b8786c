"""A token becomes a verdict, without any framework."""
