"""Networks that generators share."""
