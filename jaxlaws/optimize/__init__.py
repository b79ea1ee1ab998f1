"""Searching for the inputs that minimise a loss."""
