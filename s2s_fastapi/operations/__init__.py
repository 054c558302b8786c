"""What an operator runs: compare what apps declare with what a realm grants."""
