"""Statistics of repeated measurements. The process is the unit of replication."""
