"""Generators: each learns from a training fold and makes synthetic images."""
