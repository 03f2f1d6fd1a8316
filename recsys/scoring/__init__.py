"""One step of the network and the best items after it, without TensorFlow.

:mod:`~recsys.scoring.scorer` is what serving uses. The others find the best items of a large catalogue:
:mod:`~recsys.scoring.tables` score all items coarsely, :mod:`~recsys.scoring.sieve` finds those that may be among the
best, and :mod:`~recsys.scoring.ranking` puts them in order.
"""
