#!lua flags=allow-oom
-- requeue: queues a failed or held job again, with all attempts before it and a new time to expire.
-- KEYS[1] the queue's prefix
-- ARGV    job id, max_queue_size
-- returns an order's answer (order.lua)

local job = load_job(ARGV[1])
if not job then return answer('unknown') end
if job.state ~= 'failed' and job.state ~= 'held' then return answer('conflict', job) end
-- A held job has a place already.
if job.state == 'failed' and places_taken() + 1 > tonumber(ARGV[2]) then return answer('full', job) end
job.attempts = 0
reset(job)
put(job, 'reason', false)
put(job, 'attempts', false)
put(job, 'expires', active + job.batch.expire_after)
make_ready(job)
note(job, 'requeued')
return answer('done', job)
