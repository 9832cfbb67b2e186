"""Tests of the workers, one file for each kind, and what they share."""
