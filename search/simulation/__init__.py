"""What a simulated search runs in: its driver, store, calendar and workload, and the course that it took."""
