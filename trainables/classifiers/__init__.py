"""Classifiers: networks and the one loop that trains them."""
