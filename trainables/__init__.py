"""How a trial is computed, stage by stage, without a scheduler and without a tracker."""
