#!lua flags=allow-oom
-- settle: ends deliveries. All but `sent` are only for the consumer that holds the job by that hand-out; a success is
-- taken wherever the job now is, since the message has gone out.
-- KEYS[1] the queue's prefix
-- ARGV    consumer, then for each: job id, receipt (stream id/reclaims), attempt, verdict (sent, retry, release, fail, hold), delay ms | reason | '',
--         relay | '', last reply | '', detail (JSON string) | '' (sent, and all that is to be said is in the rest)
-- returns for each 'done', 'late' or 'lost'

local me = ARGV[1]
-- The message could not be built, or was not to be: nothing was tried.
local NOT_TRIED = { render = true, encryption = true, suppressed = true }

local function remember(job, relay, reply)
  put_text(job, 'relay', relay)
  put_text(job, 'reply', reply)
end

local verdicts = {}

function verdicts.retry(job, attempt, delay)
  job.attempts = attempt
  make_wait(job, 'retrying', now + tonumber(delay))
  return 'retrying'
end

function verdicts.release(job)
  reset(job)
  make_ready(job)
  return 'released'
end

function verdicts.fail(job, attempt, reason)
  if not NOT_TRIED[reason] then job.attempts = attempt end
  local state = reason == 'suppressed' and 'suppressed' or 'failed'
  finish(job, state, reason)
  return state
end

function verdicts.hold(job, attempt)
  job.attempts = attempt
  finish(job, 'held')
  return 'held'
end

-- A person's word stands, though the message went out; that it did is noted, once.
local function too_late(job, relay, reply)
  if call('HSETNX', job_key(job.id), 'late', 1) == 1 then
    remember(job, relay, reply)
    save(job)
    note(job, 'late_success', '"the relay had taken it before"')
  end
  return 'lost'
end

-- A plain job, sent by the one who holds it: how nearly every job ends. Its last two events are in its hash, and need
-- no list. Returns whether it was one.
local function sent_at_once(id, receipt, attempt, relay, reply)
  if relay == '' or reply == '' or #relay > SHORT or #reply > SHORT then return false end
  local batch_id, job = batch_of_first(id), job_key(id)
  if not batch_id then return false end
  local h = call('HMGET', job, 'state', 'sid', 'changed', 'facts', 'owner', 'template')
  local sid, facts = h[2], h[4]
  if h[1] ~= 'sending' or h[3] or not facts or h[5] ~= me or receipt ~= sid .. '/0' then return false end
  local priority = string.match(facts, '^1 (%a+) ')
  if not priority then return false end
  call('HSET', job, 'state', 'sent', 'sent_at', now_text, 'attempts', attempt, 'relay', relay, 'reply', reply)
  take_from(key.ready[priority], sid)
  end_at(key.ended, id)
  free_content(batch_id, h[6])
  count(priority, 'sending', -1)
  count(priority, 'sent', 1)
  return true
end

local function settle(id, receipt, attempt, verdict, extra, relay, reply, detail)
  if verdict == 'sent' and detail == '' and sent_at_once(id, receipt, attempt, relay, reply) then
    return 'done'
  end
  local job = load_job(id)
  if not job then return 'lost' end
  local mine = is_held_by(job, me) and receipt == job.sid .. '/' .. string.format('%d', job.reclaims)
  if verdict == 'sent' then
    if job.state == 'sent' then return 'lost' end
    if job.state == 'cancelled' or job.state == 'suppressed' then return too_late(job, relay, reply) end
    job.attempts = math.max(job.attempts, attempt)
    remember(job, relay, reply)
    job.history_in_hash = mine and detail == ''
    if job.history_in_hash then put(job, 'sent_at', now) end
    finish(job, 'sent')
    if not job.history_in_hash then note(job, 'sent', mine and detail or '"reported after the lease was lost"') end
    return mine and 'done' or 'late'
  end
  if not mine then return 'lost' end
  remember(job, relay, reply)
  note(job, verdicts[verdict](job, attempt, extra), detail)
  return 'done'
end

local results = {}
for i = 2, #ARGV, 8 do
  results[#results + 1] =
    settle(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7])
end
flush()
return results
