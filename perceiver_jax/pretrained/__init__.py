"""Released models: their configs, names and files, in and out."""
