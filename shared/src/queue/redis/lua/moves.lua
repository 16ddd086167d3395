-- Part of the operations that move jobs: the few moves that there are. Nothing here can raise.

local TIMELINE_LIMIT = 50

-- A text of a job, for `save`: in its hash where it is short, else beside it. The short one is the newer one where
-- there are both.
local function put_text(job, field, text)
  if text == '' then return end
  if #text <= SHORT then
    job.set[#job.set + 1], job.set[#job.set + 2] = field, text
  else
    call('HSET', detail_key(job.id), field, text)
    job.drop[#job.drop + 1] = field
  end
end

-- What makes a job one that is not plain any more.
local CHANGES = { attempts = true, reclaims = true, marked = true, expires = true, send_at = true }

-- A field of a job, for `save`; false drops it, unless it is known not to be there.
local function put(job, field, value)
  if value then
    job.set[#job.set + 1], job.set[#job.set + 2] = field, value
    if CHANGES[field] and not job.changed then
      job.changed = '1'
      job.set[#job.set + 1], job.set[#job.set + 2] = 'changed', 1
    end
  elseif job.has[field] ~= false then
    job.drop[#job.drop + 1] = field
  end
  job.has[field] = value
end

local function save(job)
  -- What is dropped may be set anew.
  if #job.drop > 0 then call('HDEL', job_key(job.id), unpack(job.drop)) end
  call('HSET', job_key(job.id), 'state', job.state, unpack(job.set))
  job.set, job.drop = {}, {}
end

local function entry(at, event, detail)
  local text = '{"at":' .. string.format('%d', at) .. ',"event":"' .. event .. '"'
  if detail and detail ~= '' then text = text .. ',"detail":' .. detail end
  return text .. '}'
end

-- Adds to a job's history; `detail` is a JSON string or empty. That it is being sent is in its hash until then.
local function note(job, event, detail)
  local entries = { entry(now, event, detail) }
  if job.since then table.insert(entries, 1, entry(job.since, 'sending', '"attempt ' .. string.format('%d', job.tried) .. '"')) end
  job.since = nil
  if call('RPUSH', timeline_key(job.id), unpack(entries)) > TIMELINE_LIMIT then
    call('LTRIM', timeline_key(job.id), -TIMELINE_LIMIT, -1)
  end
end

-- Gives up one job's claim to its batch's content; the last one frees it, and the template with the last batch.
local function release_content(batch)
  if batch.single then free_content(batch.id, batch.template) else given_up[batch] = (given_up[batch] or 0) + 1 end
end

-- Takes a job out of the one place where it is. Its `sid` stays behind, and says nothing once it has ended.
local function withdraw(job)
  local place = FINISHED[job.state]
  if job.sid then
    take_from(job.ready, job.sid)
    job.sid = nil
  elseif place then
    -- It may have ended in this very call.
    if ended[place] then
      call('ZADD', place, unpack(ended[place]))
      ended[place] = nil
    end
    call('ZREM', place, job.id)
  else
    call('ZREM', key.delayed, job.id)
    call('ZREM', key.expiring, job.id)
    if job.batch.priority == 'high' then call('ZREM', key.urgent, job.id) end
  end
  if job.state == 'sending' and not job.history_in_hash then put(job, 'since', false) end
end

-- What an outcome, or a person, resets.
local function reset(job)
  put(job, 'marked', false)
  put(job, 'reclaims', false)
end

local function shift(job, state)
  count(job.batch.priority, job.state, -1)
  count(job.batch.priority, state, 1)
  if NEEDS_CONTENT[job.state] and not NEEDS_CONTENT[state] then release_content(job.batch) end
  job.state = state
end

-- From where it is to a stream: `queued`, or `retrying` once an attempt has counted.
local function make_ready(job)
  withdraw(job)
  shift(job, job.attempts > 0 and 'retrying' or 'queued')
  job.sid = call('XADD', job.ready, '*', 'job', job.id)
  put(job, 'sid', job.sid)
  save(job)
end

-- From where it is to the delayed ones. One that will expire before it is due is watched for that as well.
local function make_wait(job, state, due)
  withdraw(job)
  shift(job, state)
  call('ZADD', key.delayed, due, job.id)
  if job.batch.priority == 'high' then call('ZADD', key.urgent, due, job.id) end
  local expires_at = job.expires and now + (job.expires - active)
  if expires_at and expires_at < due then call('ZADD', key.expiring, expires_at, job.id) end
  put(job, 'sid', false)
  put(job, 'attempts', job.attempts)
  reset(job)
  save(job)
end

-- From where it is to an end.
local function finish(job, state, reason)
  local was = job.state
  withdraw(job)
  shift(job, state)
  end_at(FINISHED[state], job.id)
  put(job, 'attempts', job.attempts)
  if reason or FINISHED[was] then put(job, 'reason', reason or false) end
  reset(job)
  save(job)
end

-- A job that was not sent in time. One that the relay may have, and that must not be sent twice, is a person's to
-- decide.
local function expire(job)
  if job.marked and job.batch.ambiguous == 'hold' then
    finish(job, 'held')
    note(job, 'held', '"expired; the relay may have it"')
  else
    finish(job, 'failed', 'expired')
    note(job, 'failed', '"expired"')
  end
end

-- How long a job of a later release waits before another worker is offered it.
local PASSED_ON_MS = 5000

-- Gives back an entry whose job a later release wrote, for a worker of that release. Its record is not touched.
local function pass_on(stream, entry)
  call('XACK', stream, GROUP, entry[1])
  call('XDEL', stream, entry[1])
  call('ZADD', key.delayed, now + PASSED_ON_MS, entry[2][2])
end
