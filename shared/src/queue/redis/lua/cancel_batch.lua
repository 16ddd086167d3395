#!lua flags=allow-oom
-- cancel_batch: takes back all jobs of a batch that no consumer holds.
-- KEYS[1] the queue's prefix
-- ARGV    batch id
-- returns how many, or -1 where the batch is not known

local batch = load_batch(ARGV[1])
if not batch then return -1 end
local cancelled = 0
for i = 0, batch.count - 1 do
  local job = load_job(batch.id .. '-' .. string.format('%d', i))
  if job and (job.state == 'queued' or job.state == 'scheduled' or job.state == 'retrying') then
    finish(job, 'cancelled')
    note(job, 'cancelled')
    cancelled = cancelled + 1
  end
end
flush()
return cancelled
