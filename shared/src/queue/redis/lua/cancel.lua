#!lua flags=allow-oom
-- cancel: takes a job back that no consumer holds. It is never handed out after that.
-- KEYS[1] the queue's prefix
-- ARGV    job id
-- returns an order's answer (order.lua)

local job = load_job(ARGV[1])
if not job then return answer('unknown') end
if job.state ~= 'queued' and job.state ~= 'scheduled' and job.state ~= 'retrying' then return answer('conflict', job) end
finish(job, 'cancelled')
note(job, 'cancelled')
return answer('done', job)
