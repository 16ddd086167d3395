#!lua flags=allow-oom
-- stats: the queue at one moment. Changes nothing.
-- KEYS[1] the queue's prefix
-- ARGV    lease ms
-- returns {paused 0|1, counters as a flat list, {ready high, normal, bulk}, {age ms of the oldest of each}, consumers}

-- Of a stream's jobs that nobody holds, so many are asked for their age: a retry stands behind younger ones.
local ASKED = 100

local ready, oldest = {}, {}
for i, priority in ipairs(PRIORITIES) do
  local stream, age = key.ready[priority], 0
  local pending = redis.pcall('XPENDING', stream, GROUP)
  ready[i] = call('XLEN', stream) - (not pending.err and pending[1] or 0)
  if ready[i] > 0 then
    for _, entry in ipairs(call('XRANGE', stream, '(' .. last_delivered(stream), '+', 'COUNT', ASKED)) do
      local job = load_job(entry[2][2])
      if job then age = math.max(age, now - job.batch.accepted) end
    end
  end
  oldest[i] = age
end
local alive = call('ZCOUNT', key.workers, '(' .. now - tonumber(ARGV[1]), '+inf')
return { paused_at and 1 or 0, call('HGETALL', key.counters), ready, oldest, alive }
