-- Part of every operation, put behind the table of key names (keys.rs): the present, jobs and batches as they are,
-- and the few moves that change them. Nothing here can raise: commands that may are called with pcall.

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%d', now)

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

-- What the jobs of a batch share and what decides, in one text of at most 64 bytes:
--   version priority max_attempts on_ambiguous expire_after count accepted expires|+|- send_at|- size of the content
-- `+`: that long after acceptance.
-- A later release may put more behind it. One that changes what is there counts the version up, and this release
-- leaves its jobs alone.
local FACTS = '^1 (%a+) (%d+) (%a+) (%d+) (%d+) (%d+) (%S+) (%S+) (%d+)'

local FINISHED = { sent = key.ended, cancelled = key.ended, suppressed = key.ended, failed = key.failed, held = key.held }

local batches = {}

-- A batch of one job is in that job's hash, and needs none of its own.
local function only_job_key(id) return job_key(id .. '-0') end

local function read_batch(id, facts, template, single)
  local priority, max_attempts, ambiguous, expire_after, size, accepted, expires, send_at, bytes = string.match(facts, FACTS)
  batches[id] = priority and {
    id = id, facts = facts, single = single, priority = priority, max_attempts = tonumber(max_attempts), ambiguous = ambiguous,
    expire_after = tonumber(expire_after), count = tonumber(size), accepted = tonumber(accepted),
    expires = expires == '+' and accepted + expire_after or tonumber(expires), send_at = tonumber(send_at), template = template, bytes = tonumber(bytes),
  } or 'newer'
  return batches[id]
end

-- A batch; nil where it is gone, nil and true where a later release wrote it.
local function load_batch(id)
  local batch = batches[id]
  if batch == nil then
    local h = call('HMGET', batch_key(id), 'facts', 'template')
    if h[1] then
      batch = read_batch(id, h[1], h[2], false)
    else
      h = call('HMGET', only_job_key(id), 'facts', 'template')
      batch = h[1] and read_batch(id, h[1], h[2], true)
    end
  end
  if batch == 'newer' then return nil, true end
  return batch or nil
end

-- Where the fields of a batch are.
local function home(batch)
  return batch.single and only_job_key(batch.id) or batch_key(batch.id)
end

-- A job's own time to send takes the place of its batch's; 0 is none.
local function own_send_at(own, batch)
  if not own then return batch.send_at end
  return tonumber(own) > 0 and tonumber(own) or nil
end

-- Nearly all jobs are plain: alone in their batch and as they were accepted. `claim` and `settle` have a short way for
-- these, which does what the general one comes to. What is as long as the job's hash says `changed`:
local CHANGES = { attempts = true, reclaims = true, marked = true, expires = true, send_at = true }

-- Whether a job may be one.
local function is_first(id) return string.sub(id, -2) == '-0' end

-- A job; nil where it is gone, nil and true where a later release wrote it.
local function load_job(id)
  local h = call('HMGET', job_key(id), 'state', 'sid', 'facts', 'template', 'attempts', 'reclaims', 'marked', 'expires',
    'send_at', 'since', 'owner', 'recipient', 'changed')
  if not h[1] then return nil end
  local batch_id = string.match(id, '^(.+)%-%d+$') or ''
  if h[3] and batches[batch_id] == nil then read_batch(batch_id, h[3], h[4], true) end
  local batch = load_batch(batch_id)
  -- There is none without facts, so they are where this release does not know of.
  if not batch then return nil, true end
  local attempts = tonumber(h[5]) or 0
  return {
    id = id, batch = batch, state = h[1], sid = not FINISHED[h[1]] and h[2] or nil, attempts = attempts,
    reclaims = tonumber(h[6]) or 0, marked = h[7] == '1', expires = tonumber(h[8]) or batch.expires,
    send_at = own_send_at(h[9], batch), ready = key.ready[batch.priority], since = tonumber(h[10]), owner = h[11],
    recipient = h[12], tried = attempts + 1, set = {}, drop = {},
    own_send_at = h[9], changed = h[13], has = { sid = h[2], attempts = h[5], reclaims = h[6], marked = h[7], since = h[10] },
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

-- Whether a consumer holds a job: it was the last to be given it.
local function is_held_by(job, me)
  return job ~= nil and job.state == 'sending' and job.owner == me
end

-- How many jobs have a place in the queue, and how many are scheduled; what `flush` has not written is not in it.
local function places_taken()
  local n = call('HMGET', key.counters, 'queued:high', 'queued:normal', 'queued:bulk', 'retrying:high', 'retrying:normal',
    'retrying:bulk', 'sending:high', 'sending:normal', 'sending:bulk', 'held:high', 'held:normal', 'held:bulk',
    'scheduled:high', 'scheduled:normal', 'scheduled:bulk')
  local used, waiting = 0, 0
  for i = 1, 12 do used = used + (n[i] or 0) end
  for i = 13, 15 do waiting = waiting + (n[i] or 0) end
  return used, waiting
end

-- ------------------------------------------------------------------------------------------------ writing

-- What is written once for all jobs of a call: counts that change, entries that leave their streams, jobs that end,
-- contents that are given up and templates with them.
local moved, withdrawn, ended, given_up, unlinked = {}, {}, {}, {}, {}

local function count(priority, state, n)
  local field = state .. ':' .. priority
  moved[field] = (moved[field] or 0) + n
end

local function free_content(batch_id, template)
  unlinked[#unlinked + 1] = content_key(batch_id)
  if template and call('HINCRBY', key.templates, template, -1) <= 0 then
    call('HDEL', key.templates, template)
    unlinked[#unlinked + 1] = template_key(template)
  end
end

-- An entry leaves its stream, and its group's pending list with that.
local function take_from(stream, sid)
  local sids = withdrawn[stream] or {}
  withdrawn[stream] = sids
  sids[#sids + 1] = sid
end

local function end_at(place, id)
  local scored = ended[place] or {}
  ended[place] = scored
  local n = #scored
  scored[n + 1], scored[n + 2] = now_text, id
end

-- Every operation that moves jobs ends with it.
local function flush()
  for stream, ids in pairs(withdrawn) do
    call('XACK', stream, GROUP, unpack(ids))
    call('XDEL', stream, unpack(ids))
  end
  for place, scored in pairs(ended) do call('ZADD', place, unpack(scored)) end
  for batch, n in pairs(given_up) do
    if call('HINCRBY', batch_key(batch.id), 'refs', -n) <= 0 then free_content(batch.id, batch.template) end
  end
  if #unlinked > 0 then call('UNLINK', unpack(unlinked)) end
  for field, n in pairs(moved) do
    if n ~= 0 then call('HINCRBY', key.counters, field, n) end
  end
  moved, withdrawn, ended, given_up, unlinked = {}, {}, {}, {}, {}
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

local NEEDS_CONTENT = { queued = true, scheduled = true, retrying = true, sending = true, failed = true, held = true }

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

-- How long a job of a later release waits before another worker is offered it.
local PASSED_ON_MS = 5000

-- Gives back an entry whose job a later release wrote, for a worker of that release. Its record is not touched.
local function pass_on(stream, entry)
  call('XACK', stream, GROUP, entry[1])
  call('XDEL', stream, entry[1])
  call('ZADD', key.delayed, now + PASSED_ON_MS, entry[2][2])
end
