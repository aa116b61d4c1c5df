"""Mixers: each composes training batches from real and synthetic images."""
