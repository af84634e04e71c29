"""Train small networks with the monitor attached: ``python -m experiments.train``.

``train`` reads the command line, ``build`` makes the parts that ``conf/`` names, ``run`` trains and
tests, ``closing`` and ``table`` print the result.
"""
