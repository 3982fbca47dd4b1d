"""How a model is spread over several devices; attached from outside."""
