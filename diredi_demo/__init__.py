"""`diredi demo`: one whole update cycle in real processes on this machine, measured and reported.

command.py       the command, and what it prints at the end
options.py       the data and models of a demo, and what differs from the services' defaults
workspace.py     the folder of a demo: identities, configurations, logs, report
scenario.py      what happens, in order
measure.py       both releases on both held-out sets; pictures
report.py        the results: report.json
html_report.py   report.html, with texts.py, charts.py
"""
