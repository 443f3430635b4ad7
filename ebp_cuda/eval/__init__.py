"""Measures of what attribution maps are worth."""
