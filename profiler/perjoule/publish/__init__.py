"""Publishing results: what is checked, what is taken out, and where a result then stands."""
