"""The web door's inside: one Gradio page on a FastAPI application; no torch, and no visitor's bytes are decoded
here."""
