"""Using a trained model: continuing texts, scoring texts, and talking with it in the terminal."""
