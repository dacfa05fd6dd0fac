"""One training step and the loop around it: update rule, schedules, state, checkpoints, log."""
