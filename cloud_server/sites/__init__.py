"""Sites: the tasks that are open for them, and what they send back."""
