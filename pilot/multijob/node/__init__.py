"""What runs on a compute node. Standard library of Python 3.8 and later only, and nothing else of the package
but `pilot.caldb.{plan,query,server}`: these modules travel together in one zipapp (docs/decisions/0101)."""
