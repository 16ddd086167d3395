#!lua flags=allow-oom
-- claim: hands ready jobs to a consumer, under its lease. Takes nothing while the queue is paused. Never waits.
-- Jobs that it meets and that have expired are failed instead.
-- KEYS[1] the queue's prefix
-- ARGV    consumer, then how many to take from high, normal and bulk at first; what a stream lacks, the others give,
--         high first
-- returns {paused 0|1, {last id of high, of normal, of bulk, of wake} | nil: it got all that it asked for,
--         ms until the next job is due | -1, deliveries, their batches}
--         The ids are those after which a wake-up has to look.

local me = ARGV[1]
local budget, DUE = 1000, 100

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

-- Streams that hold nothing, as most do that nobody uses, are not asked twice.
local is_empty = {}

local function read(stream, n)
  local reply = with_group(stream, function()
    return redis.pcall('XREADGROUP', 'GROUP', GROUP, me, 'COUNT', n, 'STREAMS', stream, '>')
  end)
  return reply and not reply.err and reply[1][2] or {}
end

-- The first hand-out of a plain job that is to be sent at once; returns whether it was one.
local function hand_out_first(id, sid)
  local batch_id, job = batch_of_first(id), job_key(id)
  if not batch_id then return false end
  local h = call('HMGET', job, 'state', 'sid', 'changed', 'facts', 'recipient', 'template')
  local facts, recipient = h[4], h[5]
  if h[1] ~= 'queued' or h[2] ~= sid or h[3] or not facts or not recipient then return false end
  local expire_after, accepted, expires, bytes = string.match(facts, '^1 %a+ %d+ %a+ (%d+) 1 (%d+) (%S+) %S+ (%d+)')
  expires = expires == '+' and accepted + expire_after or tonumber(expires)
  if not expires or active >= expires then return false end
  call('HSET', job, 'state', 'sending', 'since', now_text, 'owner', me)
  local content = content_along(batch_id, tonumber(bytes))
  deliveries[#deliveries + 1] = { id, sid, recipient, content, facts, h[6] }
  return true
end

local function hand_out(job)
  -- Its group was lost and made anew: the hand-out before is another one.
  if job.state == 'sending' then
    job.reclaims = job.reclaims + 1
    put(job, 'reclaims', job.reclaims)
  end
  shift(job, 'sending')
  put(job, 'since', now)
  put(job, 'owner', me)
  save(job)
  deliver(job)
end

-- Hands out up to n jobs of a stream; returns how many it lacked.
local function take(priority, n)
  local stream = key.ready[priority]
  if is_empty[stream] then return n end
  while n > 0 and budget > 0 do
    local entries = read(stream, math.min(n, budget))
    if #entries == 0 then return n end
    budget = budget - #entries
    local first = 0
    for _, entry in ipairs(entries) do
      local id, sid = entry[2][2], entry[1]
      if hand_out_first(id, sid) then
        first = first + 1
      else
        local job, newer = load_job(id)
        if newer then
          pass_on(stream, entry)
        elseif not job or job.sid ~= sid then
          call('XACK', stream, GROUP, sid)
          call('XDEL', stream, sid)
        elseif is_expired(job) then
          expire(job)
        else
          hand_out(job)
          n = n - 1
        end
      end
    end
    count(priority, 'queued', -first)
    count(priority, 'sending', first)
    n = n - first
  end
  return n
end

local function last_id(stream)
  if is_empty[stream] then return '0-0' end
  local newest = call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  return newest[1] and newest[1][1] or '0-0'
end

call('ZADD', key.workers, now, me)
local lacking = 0
if not paused_at then
  -- A due job does not wait for the next upkeep; a backlog of them does.
  if next_due() == 0 then
    promote(key.urgent, DUE)
    promote(key.delayed, DUE)
  end
  for _, priority in ipairs(PRIORITIES) do
    is_empty[key.ready[priority]] = call('XLEN', key.ready[priority]) == 0
  end
  for i, priority in ipairs(PRIORITIES) do
    lacking = lacking + take(priority, tonumber(ARGV[i + 1]))
  end
  for _, priority in ipairs(PRIORITIES) do
    lacking = take(priority, lacking)
  end
  flush()
end

-- Who got all that it asked for comes again without waiting.
if not paused_at and (lacking == 0 or budget <= 0) then return { 0, false, -1, deliveries, delivered_batches } end
local last = {}
for _, priority in ipairs(PRIORITIES) do last[#last + 1] = last_id(key.ready[priority]) end
last[4] = last_id(key.wake)
return { paused_at and 1 or 0, last, paused_at and -1 or next_due(), deliveries, delivered_batches }
