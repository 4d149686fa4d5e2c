"""`diredi demo`: one whole update cycle in real processes on this machine, measured and reported.

command.py       the command, and what it prints at the end
options.py       whose data and models, and what differs from the services' defaults
workspace.py     where everything lies; identities and configurations
processes.py     the five processes: started, watched, stopped
scenario.py      what happens, in order
measure.py       both releases on both held-out sets; pictures
report.py        what was found out: report.json
html_report.py   report.html, with texts.py, charts.py
"""
