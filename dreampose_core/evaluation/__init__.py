"""Measure a model against ground truth, in comparison with baselines that need no network."""
