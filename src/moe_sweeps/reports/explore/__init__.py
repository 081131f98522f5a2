"""The part of the page in which a reader chooses runs: their numbers and curves, packed for the browser.

    runs.py     who took part: settings, final numbers, how each run ended
    series.py   metrics.jsonl and routing.jsonl of one run as series of numbers
    pack.py     all of it as one text that stands in the page

What reads it lies in templates/explore/.
"""
