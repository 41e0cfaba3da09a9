"""The style of the HTML report, in the file itself so that the page needs nothing else."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b2733; background: #f6f7f9; margin: 0 }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; background: #fff; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #e2e6ea; text-align: right }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
.facts th { font-weight: 600; white-space: nowrap; vertical-align: top }
.facts td { text-align: left; overflow-wrap: anywhere }
.wide { overflow-x: auto }
"""
