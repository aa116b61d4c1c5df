"""What trainings of generators and classifiers share: the loop, its checkpoints' parts, steps that a GPU replays."""
