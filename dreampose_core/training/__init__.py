"""Training: samples, losses, one loop with checkpoints, and the recipes for a base model and for a subject."""
