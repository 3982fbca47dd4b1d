"""One file for each stage: its section of the recipe, made into work."""
