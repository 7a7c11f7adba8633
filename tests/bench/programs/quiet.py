"""Importing this sets logging as the peers have it: what goes well is not worth a line."""

import logging

import structlog

# The command line has set up its log by the time that it loads an app that imports this.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
