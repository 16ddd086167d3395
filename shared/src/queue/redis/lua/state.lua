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
      'expire_after', 'template', 'count', 'gone')
    batches[id] = h[1] and not h[10] and {
      id = id, priority = h[1], max_attempts = tonumber(h[2]), ambiguous = h[3], accepted = tonumber(h[4]),
      send_at = tonumber(h[5]), expires = tonumber(h[6]), expire_after = tonumber(h[7]), template = h[8],
      count = tonumber(h[9]),
    } or false
  end
  return batches[id] or nil
end

local function load_job(id)
  local h = call('HMGET', job_key(id), 'state', 'sid', 'attempts', 'reclaims', 'marked', 'expires', 'send_at')
  local batch = h[1] and load_batch(string.match(id, '^(.+)%-%d+$') or '')
  if not batch then return nil end
  return {
    id = id, batch = batch, state = h[1], sid = h[2] or nil, attempts = tonumber(h[3]) or 0,
    reclaims = tonumber(h[4]) or 0, marked = h[5] == '1', expires = tonumber(h[6]) or batch.expires,
    send_at = tonumber(h[7]) or batch.send_at, ready = key.ready[batch.priority],
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

local moved, moved_in = {}, {}

local function count(batch, state, n)
  local field = state .. ':' .. batch.priority
  moved[field] = (moved[field] or 0) + n
  local states = moved_in[batch.id] or {}
  moved_in[batch.id] = states
  states[state] = (states[state] or 0) + n
end

-- Writes what was counted. Every operation that moves jobs ends with it.
local function flush()
  for field, n in pairs(moved) do
    if n ~= 0 then call('HINCRBY', key.counters, field, n) end
  end
  for id, states in pairs(moved_in) do
    for state, n in pairs(states) do
      if n ~= 0 then call('HINCRBY', batch_key(id), state, n) end
    end
  end
  moved, moved_in = {}, {}
end

-- A text of a job: in its hash where it is short, else beside it.
local function put_text(id, field, text)
  if #text <= SHORT then
    call('HSET', job_key(id), field, text)
    call('HDEL', detail_key(id), field)
  else
    call('HSET', detail_key(id), field, text)
    call('HDEL', job_key(id), field)
  end
end

local function text_of(id, field)
  return call('HGET', job_key(id), field) or call('HGET', detail_key(id), field)
end

-- Adds to a job's history; `detail` is a JSON string or empty.
local function note(id, event, detail)
  local entry = '{"at":' .. string.format('%d', now) .. ',"event":"' .. event .. '"'
  if detail and detail ~= '' then entry = entry .. ',"detail":' .. detail end
  if call('RPUSH', timeline_key(id), entry .. '}') > TIMELINE_LIMIT then
    call('LTRIM', timeline_key(id), -TIMELINE_LIMIT, -1)
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
    call('XACK', job.ready, GROUP, job.sid)
    call('XDEL', job.ready, job.sid)
    job.sid = nil
  elseif FINISHED[job.state] then
    call('ZREM', FINISHED[job.state], job.id)
  else
    call('ZREM', key.delayed, job.id)
    call('ZREM', key.expiring, job.id)
  end
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
  call('HSET', job_key(job.id), 'state', job.state, 'sid', job.sid)
end

-- From where it is to the delayed ones. One that will expire before it is due is watched for that as well.
local function make_wait(job, state, due)
  withdraw(job)
  shift(job, state)
  call('ZADD', key.delayed, due, job.id)
  local expires_at = job.expires and now + (job.expires - active)
  if expires_at and expires_at < due then call('ZADD', key.expiring, expires_at, job.id) end
  call('HSET', job_key(job.id), 'state', state, 'attempts', job.attempts)
  call('HDEL', job_key(job.id), 'sid', 'marked', 'reclaims')
end

-- From where it is to an end.
local function finish(job, state, reason)
  withdraw(job)
  shift(job, state)
  call('ZADD', FINISHED[state], now, job.id)
  call('HSET', job_key(job.id), 'state', state, 'attempts', job.attempts)
  if reason then call('HSET', job_key(job.id), 'reason', reason) else call('HDEL', job_key(job.id), 'reason') end
  call('HDEL', job_key(job.id), 'sid', 'marked', 'reclaims')
end

local function expire(job)
  finish(job, 'failed', 'expired')
  note(job.id, 'failed', '"not sent before it expired"')
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
