"""What is served by default: cards and the recipes that make their files."""
