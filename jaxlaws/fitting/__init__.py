"""Coefficients of laws from measured runs, and how sure they are."""
