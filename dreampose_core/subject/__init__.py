"""A subject: fine-tuning the model to one person; recipes and the subject folder."""
