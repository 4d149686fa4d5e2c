"""`diredi box`: a cloud, a site with its pages and an edge node with cameras, on one machine and in one folder.

command.py          the command, and what it prints
options.py          what a box is told, and remembers
folder.py           the folder of a box: its lock, what it remembers, identities that are renewed
service_configs.py  the configuration of each of the three services
box.py              what a box does, from its start to its end
"""
