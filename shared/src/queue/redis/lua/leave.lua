#!lua flags=allow-oom
-- leave: forgets a consumer that holds nothing.
-- KEYS[1] the queue's prefix
-- ARGV    consumer
-- returns 1 where it is forgotten, 0 where it still holds something

return forget_consumer(ARGV[1]) and 1 or 0
