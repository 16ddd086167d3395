#!lua flags=allow-oom
-- reclaim: takes over jobs whose lease has run out, to be run at once: an entry of a pending list never comes back
-- through a claim. One that is taken over too often has killed its workers, and ends.
-- KEYS[1] the queue's prefix
-- ARGV    consumer, lease ms, at most how many, reclaims that are too many, time ms after which nothing is taken: a
--         call that lay in the socket of a stopped server finds every lease run out, though all workers live
-- returns {deliveries, their batches, ids that ended}

local me, lease, left, too_many = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local poisoned = {}
if now > tonumber(ARGV[5]) then return { {}, {}, {} } end
call('ZADD', key.workers, now, me)

local function take_over(job)
  job.reclaims = job.reclaims + 1
  if job.reclaims < too_many then
    note(job, 'reclaimed', '"its worker went away"')
    put(job, 'reclaims', job.reclaims)
    put(job, 'owner', me)
    -- While the queue is paused nothing is handed out; what has expired is ended where others are.
    if paused_at or (is_expired(job) and not job.marked) then
      make_ready(job)
    else
      put(job, 'since', now)
      save(job)
      deliver(job)
    end
    return
  end
  local state = job.marked and job.batch.ambiguous == 'hold' and 'held' or 'failed'
  finish(job, state, state == 'failed' and 'poison' or nil)
  note(job, state, '"its worker went away too often"')
  poisoned[#poisoned + 1] = job.id
end

for _, priority in ipairs(PRIORITIES) do
  local stream = key.ready[priority]
  local idle = left > 0 and redis.pcall('XPENDING', stream, GROUP, 'IDLE', lease, '-', '+', left) or {}
  for _, entry in ipairs(idle) do
    local found, job, newer = call('XRANGE', stream, entry[1], entry[1]), nil, false
    if found[1] then job, newer = load_job(found[1][2][2]) end
    if job and job.state == 'sending' and job.sid == entry[1] then
      -- Not tested for its idle time once more: the clock may have gone back in between.
      call('XCLAIM', stream, GROUP, me, 0, entry[1], 'JUSTID')
      left = left - 1
      take_over(job)
    elseif not newer then
      call('XACK', stream, GROUP, entry[1])
      call('XDEL', stream, entry[1])
    end
  end
end
flush()
return { deliveries, delivered_batches, poisoned }
