"""Load generators, which run inside the worker beside the engine, and the prompts they send."""
