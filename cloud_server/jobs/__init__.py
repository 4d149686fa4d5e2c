"""The cloud's long work: jobs in processes of their own."""
