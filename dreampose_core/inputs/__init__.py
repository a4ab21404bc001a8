"""Combine a photo and a motion: fit both to one size, check the photo, write previews."""
