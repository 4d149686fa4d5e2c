"""The long work of the cloud: jobs in processes of their own."""
