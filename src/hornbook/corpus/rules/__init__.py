"""Quality rules as published, each a function from a batch of texts to one number for each text."""
