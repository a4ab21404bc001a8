"""A subject: fine-tuning to one person, the recipe, the folder with what was tuned, pictures while it is tuned."""
