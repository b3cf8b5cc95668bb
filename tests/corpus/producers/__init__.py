"""Towers as their producers write them: each function writes one SavedModel into the folder that it is given."""
