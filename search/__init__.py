"""The search: command line, Python interface, sampler, schedulers, display and outcome."""

from search.api import SearchResult, load_result, run_search

__all__ = ["SearchResult", "load_result", "run_search"]
