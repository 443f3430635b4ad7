"""Excitation Backprop behind the interfaces of other attribution libraries.

torchray, captum and grad_cam take a torch module as those libraries do and run it through this package: nothing is
hooked, patched or switched. None of the libraries is imported before its module here is.
"""
