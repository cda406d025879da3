"""Run folders: open, save, list, convert, publish; results of evaluations."""
