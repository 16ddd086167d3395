#!lua flags=allow-oom
-- reschedule: moves a scheduled job to another time; one that is not in the future makes it ready.
-- KEYS[1] the queue's prefix
-- ARGV    job id, time ms, max_queue_size, the time in words (JSON string)
-- returns an order's answer (order.lua)

local job, at = load_job(ARGV[1]), tonumber(ARGV[2])
if not job then return answer('unknown') end
if job.state ~= 'scheduled' then return answer('conflict', job) end
if at <= now and places_taken() + 1 > tonumber(ARGV[3]) then return answer('full', job) end
if at > now then
  put(job, 'send_at', at)
  call('ZADD', key.delayed, at, job.id)
  if job.batch.priority == 'high' then call('ZADD', key.urgent, at, job.id) end
  save(job)
else
  put(job, 'send_at', 0)
  put(job, 'expires', active + job.batch.expire_after)
  make_ready(job)
end
note(job, 'rescheduled', at > now and ARGV[4] or '"now"')
return answer('done', job)
