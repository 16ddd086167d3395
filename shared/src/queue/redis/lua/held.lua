#!lua flags=allow-oom
-- held: what a consumer holds, from the groups' pending lists. Changes nothing.
-- KEYS[1] the queue's prefix
-- ARGV    consumer
-- returns {deliveries, their batches}

for _, priority in ipairs(PRIORITIES) do
  local stream = key.ready[priority]
  local pending = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1000, ARGV[1])
  for _, entry in ipairs(pending) do
    local found = call('XRANGE', stream, entry[1], entry[1])
    local job = found[1] and load_job(found[1][2][2])
    if job and job.state == 'sending' and job.sid == entry[1] then deliver(job) end
  end
end
return { deliveries, delivered_batches }
