"""Measures a whole relay on real servers: letters a second, arrival to alert, memory, and what a kill costs.

`python -m bench` starts a private Dovecot, one process that swallows mail and plays the Bot API, and
`relay run` between them; every letter is then looked for at its own doctor's. Figures are comparable
across machines by their ratio to the floor measured in the same run.
"""
