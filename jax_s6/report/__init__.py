"""Write one HTML page about runs and sweeps: ``python -m jax_s6.report``.

``folder`` reads what ``train`` and ``sweep`` wrote, ``evaluation`` and ``layers`` describe the networks, and ``page``
fills the template in ``_page``.
"""
