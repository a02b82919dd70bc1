"""TinyGSM: questions, each with a small Python function, turned to worked solutions in words. No code is ever run."""
