"""What is made of finished runs: tables of zones, comparisons, and runs that are joined."""
