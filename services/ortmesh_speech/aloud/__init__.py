"""Aloud: a text as a person reads it, from its characters to the phonemes of American English. Stage: task."""
