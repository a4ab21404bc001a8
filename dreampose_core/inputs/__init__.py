"""A photo and a motion brought together: fitted to one size, checked, previewed."""
