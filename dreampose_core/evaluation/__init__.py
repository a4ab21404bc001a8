"""Measuring a model on clips whose truth is known, beside baselines that need no network."""
