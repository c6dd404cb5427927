"""The built-in model: a checkpoint of Chronos-Bolt, and the graph that `openanomaly export` made of it."""
