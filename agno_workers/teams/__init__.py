"""Teams: agents and teams that work on one input together."""
