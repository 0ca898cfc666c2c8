from lm.system import environment

# Before a test loads torch: all that the tests start inherits it.
environment.let_threads_yield()
