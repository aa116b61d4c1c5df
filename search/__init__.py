"""The search: command line, sampler, schedulers, display and outcome."""
