"""What `make bench` runs: our daemons beside their peers, on one machine, in turn. No part of the product.

`run` chooses the jobs, each in a module of `jobs/`; a job's tables go to the terminal and into `RESULTS.md`.
"""
