"""What all tests need."""

import signal

# A shell starts its background jobs with SIGINT ignored, and children inherit that.
# Tests that interrupt real processes need the usual meaning; a handler (unlike
# "ignore") is reset to the default in a program that is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)
