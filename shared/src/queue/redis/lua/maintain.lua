#!lua flags=allow-oom
-- maintain: makes due jobs ready, fails expired ones, removes old records and dead consumers. A bounded piece a call.
-- KEYS[1] the queue's prefix
-- ARGV    at most how many of each, retention ms, failed retention ms, records kept at most, lease ms
-- returns {promoted, {ids that expired}, records removed, ms until the next job is due | -1}

local limit, retention, failed_retention = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local retain, lease = tonumber(ARGV[4]), tonumber(ARGV[5])
local HEADS = 16
local promoted, removed = 0, 0

-- Delayed jobs that will expire before they are due; a pause has moved their time.
local function expire_delayed()
  for _, id in ipairs(call('ZRANGEBYSCORE', key.expiring, '-inf', now, 'LIMIT', 0, limit)) do
    local job, newer = load_job(id)
    if newer then
      call('ZADD', key.expiring, now + PASSED_ON_MS, id)
    elseif not job then
      call('ZREM', key.expiring, id)
    elseif is_expired(job) then
      fail_expired(job)
    else
      call('ZADD', key.expiring, now + (job.expires - active), id)
    end
  end
end

local function expire_heads()
  for _, priority in ipairs(PRIORITIES) do
    local stream = key.ready[priority]
    local head = call('XRANGE', stream, '(' .. last_delivered(stream), '+', 'COUNT', HEADS)
    for _, entry in ipairs(head) do
      local job = load_job(entry[2][2])
      if job and job.sid == entry[1] and is_expired(job) then fail_expired(job) end
    end
  end
end

-- A batch whose records are gone is remembered this long after acceptance, so that a repeated enqueue is recognised.
local REMEMBERED_MS = 60000

local function remember_batch(batch)
  local left = batch.accepted + REMEMBERED_MS - now
  if left > 0 then
    call('HSET', home(batch), 'gone', (batch.send_at or 0) > batch.accepted and 1 or 0)
    call('PEXPIRE', home(batch), left)
  end
end

local function forget(ids, place)
  local jobs, left, names, gone = {}, {}, {}, {}
  local function forget_batch(batch)
    local entry = call('HGET', home(batch), 'entry')
    if entry then left[entry] = (left[entry] or 0) - 1 end
    names[#names + 1] = labels_key(batch.id)
    if not batch.single then names[#names + 1] = batch_key(batch.id) end
    gone[#gone + 1] = batch
  end
  for _, id in ipairs(ids) do
    local job, newer = load_job(id)
    if job then
      if NEEDS_CONTENT[job.state] then release_content(job.batch) end
      if job.batch.single then
        forget_batch(job.batch)
      else
        call('HINCRBY', batch_key(job.batch.id), 'removed:' .. job.state, 1)
        if call('HINCRBY', batch_key(job.batch.id), 'records', -1) <= 0 then forget_batch(job.batch) end
      end
    end
    if newer then
      -- Its release removes it. Until then it must not stand before others.
      call('ZADD', place, now, id)
    else
      jobs[#jobs + 1] = id
      for _, name in ipairs({ job_key(id), detail_key(id), timeline_key(id) }) do names[#names + 1] = name end
    end
  end
  if #jobs == 0 then return end
  flush()
  call('ZREM', place, unpack(jobs))
  call('UNLINK', unpack(names))
  for entry, n in pairs(left) do
    -- One of a single batch is not counted.
    if call('HINCRBY', key.several, entry, n) <= 0 then
      call('HDEL', key.several, entry)
      call('XDEL', key.batches, entry)
    end
  end
  for _, batch in ipairs(gone) do
    remember_batch(batch)
    batches[batch.id] = nil
  end
  removed = removed + #jobs
end

local function forget_old(place, kept_ms)
  forget(call('ZRANGEBYSCORE', place, '-inf', now - kept_ms, 'LIMIT', 0, limit), place)
end

-- The oldest of both kinds until no more than `retain` are left.
local function forget_surplus()
  local surplus = math.min(call('ZCARD', key.ended) + call('ZCARD', key.failed) - retain, limit)
  if surplus <= 0 then return end
  local a = call('ZRANGE', key.ended, 0, surplus - 1, 'WITHSCORES')
  local b = call('ZRANGE', key.failed, 0, surplus - 1, 'WITHSCORES')
  local ended_ids, failed_ids = {}, {}
  for _ = 1, surplus do
    local i, k = 2 * #ended_ids + 1, 2 * #failed_ids + 1
    if a[i] and (not b[k] or tonumber(a[i + 1]) <= tonumber(b[k + 1])) then
      ended_ids[#ended_ids + 1] = a[i]
    else
      failed_ids[#failed_ids + 1] = b[k]
    end
  end
  forget(ended_ids, key.ended)
  forget(failed_ids, key.failed)
end

promoted = promote(key.urgent, limit) + promote(key.delayed, limit)
expire_delayed()
-- Not while a backlog is promoted: the caller comes again at once.
if promoted < limit then expire_heads() end
flush()
forget_old(key.ended, retention)
forget_old(key.failed, failed_retention)
forget_surplus()
for _, name in ipairs(call('ZRANGEBYSCORE', key.workers, '-inf', now - 10 * lease, 'LIMIT', 0, 10)) do
  forget_consumer(name)
end

return { promoted, expired, removed, next_due() }
