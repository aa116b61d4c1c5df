"""What the samplers are made of: draws, TPE, what trials taught, what settings cost, candidates and their ranking."""
