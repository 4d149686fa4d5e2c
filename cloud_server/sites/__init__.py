"""The sites, their tasks, and the results that they send back."""
