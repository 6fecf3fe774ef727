"""What the measured process does with its engine: requests one by one, or a load that is served as it comes."""
