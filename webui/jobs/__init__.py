"""Jobs: the queue, their records, what they say while they run, and the supervised process that owns the engine.

`service.JobService` is the one way in for the page, the API and scripts. Nothing here imports torch; the engine lives
in a child process (`worker`), so whatever happens to the GPU, the front stays up.
"""
