#!lua flags=allow-oom
-- claim: hands ready jobs to a consumer, under its lease. Takes nothing while the queue is paused. Never waits.
-- Jobs that it meets and that have expired are failed instead.
-- KEYS[1] the queue's prefix
-- ARGV    consumer, then how many to take from high, normal and bulk at first; what a stream lacks, the others give,
--         high first
-- returns {paused 0|1, satisfied 0|1, {last id of high, of normal, of bulk, of wake}, ms until the next job is due | -1,
--         deliveries, their batches}
--         The ids are those after which a wake-up has to look.

local me = ARGV[1]
local budget, DUE = 1000, 100

-- Streams that hold nothing, as most do that nobody uses, are not asked twice.
local is_empty = {}

local function read(stream, n)
  local reply = with_group(stream, function()
    return redis.pcall('XREADGROUP', 'GROUP', GROUP, me, 'COUNT', n, 'STREAMS', stream, '>')
  end)
  return reply and not reply.err and reply[1][2] or {}
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
    for _, entry in ipairs(entries) do
      local job, newer = load_job(entry[2][2])
      if newer then
        pass_on(stream, entry)
      elseif not job or job.sid ~= entry[1] then
        call('XACK', stream, GROUP, entry[1])
        call('XDEL', stream, entry[1])
      elseif is_expired(job) then
        expire(job)
      else
        hand_out(job)
        n = n - 1
      end
    end
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
  promote(key.urgent, DUE)
  promote(key.delayed, DUE)
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

local last = {}
for _, priority in ipairs(PRIORITIES) do last[#last + 1] = last_id(key.ready[priority]) end
last[4] = last_id(key.wake)
local satisfied = not paused_at and (lacking == 0 or budget <= 0)
return {
  paused_at and 1 or 0, satisfied and 1 or 0, last, paused_at and -1 or next_due(), deliveries, delivered_batches,
}
