"""The command line: python -m dreampose_core COMMAND."""
