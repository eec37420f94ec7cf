"""The paper's experiments: recipes in `configs`, and the commands that run them."""
