"""Train small networks with the monitor attached: ``python -m experiments.train``.

``train`` reads the command line, ``build`` makes the parts that ``conf/`` names, ``run`` lets them
work, ``table`` prints what came out.  Of the package only public names are used.
"""
