"""The RPCs: each converts, calls a desk, converts back. Errors become status codes in the server's one interceptor."""
