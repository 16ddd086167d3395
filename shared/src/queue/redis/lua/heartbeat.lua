#!lua flags=allow-oom
-- heartbeat: a consumer is alive.
-- KEYS[1] the queue's prefix
-- ARGV    consumer
-- returns 1

call('ZADD', key.workers, now, ARGV[1])
return 1
