"""Reading, splitting and preprocessing of labelled images."""
