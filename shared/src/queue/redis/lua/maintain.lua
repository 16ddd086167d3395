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
    local job = load_job(id)
    if not job then
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

local function forget_batch(batch)
  local entry = call('HGET', batch_key(batch.id), 'entry')
  if entry then call('XDEL', key.batches, entry) end
  call('UNLINK', labels_key(batch.id), batch_key(batch.id))
  local remembered = batch.accepted + REMEMBERED_MS - now
  if remembered > 0 then
    call('HSET', batch_key(batch.id), 'accepted', batch.accepted, 'send_at', batch.send_at or 0)
    call('PEXPIRE', batch_key(batch.id), remembered)
  end
end

local function forget(ids, place)
  for _, id in ipairs(ids) do
    local job = load_job(id)
    call('ZREM', place, id)
    call('UNLINK', job_key(id), detail_key(id), timeline_key(id))
    if job then
      if NEEDS_CONTENT[job.state] then release_content(job.batch) end
      call('HINCRBY', batch_key(job.batch.id), 'removed:' .. job.state, 1)
      if call('HINCRBY', batch_key(job.batch.id), 'records', -1) <= 0 then forget_batch(job.batch) end
    end
    removed = removed + 1
  end
end

local function forget_old(place, kept_ms)
  forget(call('ZRANGEBYSCORE', place, '-inf', now - kept_ms, 'LIMIT', 0, limit), place)
end

-- The oldest of both kinds until no more than `retain` are left.
local function forget_surplus()
  local surplus = call('ZCARD', key.ended) + call('ZCARD', key.failed) - retain
  for _ = 1, math.min(surplus, limit) do
    local a = call('ZRANGE', key.ended, 0, 0, 'WITHSCORES')
    local b = call('ZRANGE', key.failed, 0, 0, 'WITHSCORES')
    if a[1] and (not b[1] or tonumber(a[2]) <= tonumber(b[2])) then
      forget({ a[1] }, key.ended)
    else
      forget({ b[1] }, key.failed)
    end
  end
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
