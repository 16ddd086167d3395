#!lua flags=allow-oom
-- batch: a batch's record. Changes nothing.
-- KEYS[1] the queue's prefix
-- ARGV    batch id
-- returns {batch}, or {} where it is not known

show_batch(ARGV[1])
return shown_batches
