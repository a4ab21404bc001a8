"""A subject: fine-tuning the model to one person; recipes, the subject folder and progress pictures."""
