"""Measuring a model on people whose truth is known, beside baselines that need no network."""
