"""`diredi demo`: one whole update cycle in real processes on this machine, measured and reported.

command.py       the command, and what it prints at the end
setting.py       whose data and models, and what differs from the services' defaults
folder.py        where everything lies; identities and configurations
fleet.py         the five processes: started, watched, stopped
story.py         what happens, in order
measure.py       both releases on both held-out sets; pictures
report.py        what was found out: report.json
page.py          report.html, with wording.py, charts.py
"""
