-- Part of every operation, put behind the table of key names (keys.rs): the present, jobs and batches as they are, and
-- what a call writes once. Nothing here can raise: commands that may are called with pcall.

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%d', now)

local PRIORITIES = { 'high', 'normal', 'bulk' }
local GROUP = 'workers'
-- Values up to this length leave a hash a listpack (hash-max-listpack-value).
local SHORT = 64

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
  local priority, _, ambiguous, expire_after, size, accepted, expires, send_at, bytes = string.match(facts, FACTS)
  batches[id] = priority and {
    id = id, facts = facts, single = single, priority = priority, ambiguous = ambiguous,
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

-- Nearly all jobs are plain: alone in their batch and as they were accepted. `claim` and `settle` have a short way for
-- these, which does what the general one comes to. One whose hash says `changed` is none.

-- The batch of a job that may be one; nil: it stands behind others of its batch.
local function batch_of_first(id) return string.match(id, '^(.+)%-0$') end

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
    send_at = h[9], ready = key.ready[batch.priority], since = tonumber(h[10]), owner = h[11],
    recipient = h[12], tried = attempts + 1, set = {}, drop = {},
    changed = h[13], has = { sid = h[2], attempts = h[5], reclaims = h[6], marked = h[7], since = h[10] },
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

local function text_of(id, field)
  return call('HGET', job_key(id), field) or call('HGET', detail_key(id), field)
end

local NEEDS_CONTENT = { queued = true, scheduled = true, retrying = true, sending = true, failed = true, held = true }

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
