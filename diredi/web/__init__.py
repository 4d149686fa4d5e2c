"""The base of the web pages that a service serves: log-in, sessions, templates, charts and a strict guard.

The pages of a program stand in the program, such as `user_domain.pages`. `WebApp` is what they are built on.
"""
