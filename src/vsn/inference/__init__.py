"""Evaluate runs, predict labels of videos, and extract features."""
