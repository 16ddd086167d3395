"""What `scripts/bench` is made of. It starts there; `scripts/test` runs the tests of the parts that measure nothing.

process     a program that was started: its CPU time, its memory, its end
subjects    what is measured, as data: Emailer's queues, the floor, and the peers that a folder describes
stack       a subject's programs with sink, Redis and wire, all fresh
stages      the figures of one subject; floor, those that nothing can beat
growth      the same cost at a thousand queued jobs and at a million, at one worker and at eight
figures     the name, title and format of each figure
run         the figures of one run, and of no other: medians, ratios, noise
tables, plot, readme    what is shown of a run
"""
