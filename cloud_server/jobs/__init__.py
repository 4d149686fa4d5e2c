"""The cloud's long work: jobs in processes of their own, and what their results become."""
