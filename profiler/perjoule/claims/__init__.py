"""Claims: hypotheses written down before anything is measured, and what results say of them."""
