"""Random and mutated octets for everything that reads what others have written.

`python -m tests.fuzz` (`make fuzz`) gives a million inputs to the readers of `targets`; the tests play a short slice.
"""
