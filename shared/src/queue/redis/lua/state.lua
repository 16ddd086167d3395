-- Part of every operation, put behind the table of key names (keys.rs): the present, jobs and batches as they are,
-- and the few moves that change them. Nothing here can raise: commands that may are called with pcall.

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local PRIORITIES = { 'high', 'normal', 'bulk' }
local GROUP = 'workers'
-- Values up to this length leave a hash a listpack (hash-max-listpack-value).
local SHORT = 64
local TIMELINE_LIMIT = 50
-- A batch whose records are gone is remembered this long after acceptance, so that a repeated enqueue is recognised.
local REMEMBERED_MS = 60000

-- The clock that jobs expire by: it stands still while the queue is paused.
local pause = call('HMGET', key.meta, 'paused_at', 'paused_ms')
local paused_at, paused_ms = tonumber(pause[1]), tonumber(pause[2]) or 0
local active = (paused_at or now) - paused_ms

-- ------------------------------------------------------------------------------------------------ reading

local batches = {}

-- The part of a batch that decides; nil where it is gone.
local function load_batch(id)
  if batches[id] == nil then
    local h = call('HMGET', batch_key(id), 'priority', 'max_attempts', 'ambiguous', 'accepted', 'send_at', 'expires',
      'expire_after', 'template', 'count')
    batches[id] = h[1] and {
      id = id, priority = h[1], max_attempts = tonumber(h[2]), ambiguous = h[3], accepted = tonumber(h[4]),
      send_at = tonumber(h[5]), expires = tonumber(h[6]), expire_after = tonumber(h[7]), template = h[8],
      count = tonumber(h[9]),
    } or false
  end
  return batches[id] or nil
end

-- A job's own time to send takes the place of its batch's; 0 is none.
local function own_send_at(own, batch)
  if not own then return batch.send_at end
  return tonumber(own) > 0 and tonumber(own) or nil
end

local function load_job(id)
  local h = call('HMGET', job_key(id), 'state', 'sid', 'attempts', 'reclaims', 'marked', 'expires', 'send_at',
    'since')
  local batch = h[1] and load_batch(string.match(id, '^(.+)%-%d+$') or '')
  if not batch then return nil end
  return {
    id = id, batch = batch, state = h[1], sid = h[2] or nil, attempts = tonumber(h[3]) or 0,
    reclaims = tonumber(h[4]) or 0, marked = h[5] == '1', expires = tonumber(h[6]) or batch.expires,
    send_at = own_send_at(h[7], batch), ready = key.ready[batch.priority],
    since = tonumber(h[8]), tried = (tonumber(h[3]) or 0) + 1, set = {}, drop = {},
  }
end

local function is_expired(job)
  return job.expires ~= nil and active >= job.expires
end

-- The entry of a stream behind which nothing has been handed out yet.
local function last_delivered(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups) do
    local info = {}
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
    if info.name == GROUP then return info['last-delivered-id'] end
  end
  return '0-0'
end

-- Whether a consumer holds a job: it is in the group's pending list under its name.
local function is_held_by(job, me)
  if not job or job.state ~= 'sending' then return false end
  local pending = redis.pcall('XPENDING', job.ready, GROUP, job.sid, job.sid, 1, me)
  return #pending == 1
end

-- Jobs in any of these states, by the counters; what `flush` has not written is not in it.
local function jobs_in(states)
  local sum = 0
  for _, state in ipairs(states) do
    for _, priority in ipairs(PRIORITIES) do
      sum = sum + (tonumber(call('HGET', key.counters, state .. ':' .. priority)) or 0)
    end
  end
  return sum
end

-- ------------------------------------------------------------------------------------------------ writing

-- What is written once for all jobs of a call: counts that change, entries that leave their streams.
local moved, withdrawn = {}, {}

local function count(batch, state, n)
  local field = state .. ':' .. batch.priority
  moved[field] = (moved[field] or 0) + n
end

-- Every operation that moves jobs ends with it.
local function flush()
  for stream, ids in pairs(withdrawn) do
    call('XACK', stream, GROUP, unpack(ids))
    call('XDEL', stream, unpack(ids))
  end
  for field, n in pairs(moved) do
    if n ~= 0 then call('HINCRBY', key.counters, field, n) end
  end
  moved, withdrawn = {}, {}
end

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

local function text_of(id, field)
  return call('HGET', job_key(id), field) or call('HGET', detail_key(id), field)
end

-- A field of a job, for `save`; false drops it.
local function put(job, field, value)
  if value then
    job.set[#job.set + 1], job.set[#job.set + 2] = field, value
  else
    job.drop[#job.drop + 1] = field
  end
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

local NEEDS_CONTENT = { queued = true, scheduled = true, retrying = true, sending = true, failed = true, held = true }

-- Gives up one job's claim to its batch's content; the last one frees it, and the template with the last batch.
local function release_content(batch)
  if call('HINCRBY', batch_key(batch.id), 'refs', -1) > 0 then return end
  call('UNLINK', content_key(batch.id))
  if batch.template and call('HINCRBY', key.templates, batch.template, -1) <= 0 then
    call('HDEL', key.templates, batch.template)
    call('UNLINK', template_key(batch.template))
  end
end

local FINISHED = { sent = key.ended, cancelled = key.ended, suppressed = key.ended, failed = key.failed, held = key.held }

-- Takes a job out of the one place where it is.
local function withdraw(job)
  if job.sid then
    local ids = withdrawn[job.ready] or {}
    withdrawn[job.ready] = ids
    ids[#ids + 1] = job.sid
    job.sid = nil
    put(job, 'sid', false)
  elseif FINISHED[job.state] then
    call('ZREM', FINISHED[job.state], job.id)
  else
    call('ZREM', key.delayed, job.id)
    call('ZREM', key.expiring, job.id)
    if job.batch.priority == 'high' then call('ZREM', key.urgent, job.id) end
  end
  if job.state == 'sending' then put(job, 'since', false) end
end

-- What an outcome, or a person, resets.
local function reset(job)
  put(job, 'marked', false)
  put(job, 'reclaims', false)
end

local function shift(job, state)
  count(job.batch, job.state, -1)
  count(job.batch, state, 1)
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
  put(job, 'attempts', job.attempts)
  reset(job)
  save(job)
end

-- From where it is to an end.
local function finish(job, state, reason)
  withdraw(job)
  shift(job, state)
  call('ZADD', FINISHED[state], now, job.id)
  put(job, 'attempts', job.attempts)
  put(job, 'reason', reason or false)
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

-- The error of a command on a group that a flush has removed makes the group anew: from the start, so that nothing
-- that was queued since is passed over.
local function with_group(stream, command)
  local reply = command()
  if type(reply) == 'table' and reply.err and string.find(reply.err, 'NOGROUP', 1, true) then
    redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    reply = command()
  end
  return reply
end
