#!lua flags=allow-oom
-- reschedule: moves a scheduled job to another time; one that is not in the future makes it ready.
-- KEYS[1] the queue's prefix
-- ARGV    job id, time ms, max_queue_size
-- returns an order's answer (order.lua)

local job, at = load_job(ARGV[1]), tonumber(ARGV[2])
if not job then return answer('unknown') end
if job.state ~= 'scheduled' then return answer('conflict', job) end
if at <= now and used_places() + 1 > tonumber(ARGV[3]) then return answer('full', job) end
put(job, 'send_at', at)
if at > now then
  call('ZADD', key.delayed, at, job.id)
  save(job)
else
  put(job, 'expires', active + job.batch.expire_after)
  make_ready(job)
end
note(job, 'rescheduled')
return answer('done', job)
