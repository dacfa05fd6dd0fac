"""From a config to one update: no disk, no clock, no other host."""
