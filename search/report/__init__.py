"""A search's report: one HTML file that needs nothing else, and the figures in it."""
