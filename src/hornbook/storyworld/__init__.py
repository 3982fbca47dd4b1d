"""A seeded little world that writes its own corpus, questions, conversations and mess."""
