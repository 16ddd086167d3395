-- Part of the operations that make due jobs ready.

-- Ids of jobs that were found to be expired.
local expired = {}

local WAITS = { scheduled = true, retrying = true, queued = true }

-- Handed out by a group that was lost, and then passed on.
local function is_stranded(job)
  return job.state == 'sending' and #call('XRANGE', job.ready, job.sid, job.sid) == 0
end

local function fail_expired(job)
  expire(job)
  expired[#expired + 1] = job.id
end

-- A scheduled job begins to age when it is due, not when somebody found time to promote it.
local function start_aging(job, due)
  job.expires = math.min(active, due - paused_ms) + job.batch.expire_after
  put(job, 'expires', job.expires)
end

-- Makes at most `limit` due jobs of `key.urgent` or `key.delayed` ready. The urgent ones come first, so that they do
-- not stand behind thousands of others that are due as well.
local function promote(waiting, limit)
  local promoted = 0
  local due = call('ZRANGEBYSCORE', waiting, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #due, 2 do
    local job, newer = load_job(due[i])
    if newer then
      call('ZADD', waiting, now + PASSED_ON_MS, due[i])
    else
      call('ZREM', waiting, due[i])
    end
    -- One that was passed on may have ended since.
    if job and (WAITS[job.state] or is_stranded(job)) then
      if job.state == 'scheduled' then start_aging(job, tonumber(due[i + 1])) end
      if is_expired(job) then
        fail_expired(job)
      else
        make_ready(job)
        promoted = promoted + 1
      end
    end
  end
  return promoted
end

-- In how many ms the next job is due; -1 where none waits.
local function next_due()
  local first = call('ZRANGE', key.delayed, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, tonumber(first[2]) - now) or -1
end
