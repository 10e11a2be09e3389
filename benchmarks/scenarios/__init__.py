"""What happens to mail when something happens: each scenario is a short program with a verdict.

`python -m benchmarks.scenarios [NAME ...]`; ../README.md says what each shows.
"""
