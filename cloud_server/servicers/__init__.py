"""The RPCs of the cloud: each converts a request, calls a service and converts the answer.

Errors become status codes in the server's one interceptor (`diredi.rpc.interceptor`).
"""
