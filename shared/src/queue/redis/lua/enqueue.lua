#!lua
-- enqueue: accepts batches, each whole or not at all. The only operation that Redis refuses when its memory is full.
-- KEYS[1] the queue's prefix
-- ARGV    max_queue_size, max_scheduled, number of batches, then for each batch:
--         id, priority, send_at ms|'', on_ambiguous, max_attempts, expire_after ms, sender domain, tags (JSON)|'',
--         metadata (JSON)|'', content|'' (stored before), template hash|'', bundle|'' (known to be stored),
--         idempotency hash|'', fingerprint, keep ms, number of jobs, then their recipients
-- returns for each batch one of
--         {'ok', batch, count, scheduled 0|1, replayed 0|1}  {'full', used, max}  {'schedule_full', used, max}
--         {'too_large', max}  {'key_reuse'}  {'need_content'}  {'need_bundle'}
-- A batch id that is known changes nothing and is answered as before.

local at = 3
local function next_arg()
  at = at + 1
  return ARGV[at]
end

local max_queue, max_scheduled = tonumber(ARGV[1]), tonumber(ARGV[2])
local used, waiting = jobs_in({ 'queued', 'retrying', 'sending', 'held' }), jobs_in({ 'scheduled' })

local function read_batch()
  local b = {
    id = next_arg(), priority = next_arg(), send_at = tonumber(next_arg()), ambiguous = next_arg(),
    max_attempts = next_arg(), expire_after = tonumber(next_arg()), domain = next_arg(), tags = next_arg(),
    metadata = next_arg(), content = next_arg(), template = next_arg(), bundle = next_arg(), idem = next_arg(), fingerprint = next_arg(),
    keep = tonumber(next_arg()), count = tonumber(next_arg()),
  }
  b.first = at + 1
  at = at + b.count
  b.scheduled = b.send_at ~= nil and b.send_at > now
  return b
end

-- What was answered before to the batch's id or its idempotency key.
local function known(b)
  local before = call('HMGET', batch_key(b.id), 'accepted', 'send_at')
  if before[1] then
    return { 'ok', b.id, b.count, (tonumber(before[2]) or 0) > tonumber(before[1]) and 1 or 0, 0 }
  end
  local stored = b.idem ~= '' and call('GET', idem_key(b.idem))
  if not stored then return nil end
  local first = cjson.decode(stored)
  if first.fingerprint ~= b.fingerprint then return { 'key_reuse' } end
  return { 'ok', first.batch, first.count, first.scheduled and 1 or 0, 1 }
end

local function refused(b)
  local max = b.scheduled and max_scheduled or max_queue
  if b.count > max then return { 'too_large', max } end
  if b.scheduled and waiting + b.count > max then return { 'schedule_full', waiting, max } end
  if not b.scheduled and used + b.count > max then return { 'full', used, max } end
  if b.content == '' and call('EXISTS', content_key(b.id)) == 0 then return { 'need_content' } end
  if b.template ~= '' and b.bundle == '' and call('EXISTS', template_key(b.template)) == 0 then
    return { 'need_bundle' }
  end
  return nil
end

local function write_shared(b)
  if b.idem ~= '' then
    local keep = math.max(now, b.scheduled and b.send_at or 0) - now + b.keep
    call('SET', idem_key(b.idem), cjson.encode({
      v = 1, fingerprint = b.fingerprint, batch = b.id, count = b.count, scheduled = b.scheduled,
    }), 'PX', math.max(keep, 1))
  end
  if b.content == '' then call('PERSIST', content_key(b.id)) else call('SET', content_key(b.id), b.content) end
  if b.template ~= '' then
    if b.bundle ~= '' then call('SET', template_key(b.template), b.bundle, 'NX') end
    call('HINCRBY', key.templates, b.template, 1)
  end
  local entry = call('XADD', key.batches, '*', 'batch', b.id)
  local fields = {
    'v', 1, 'priority', b.priority, 'max_attempts', b.max_attempts, 'ambiguous', b.ambiguous, 'accepted', now,
    'expire_after', b.expire_after, 'count', b.count, 'records', b.count, 'refs', b.count, 'entry', entry,
    'domain', b.domain,
  }
  local function add(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if b.scheduled then add('send_at', b.send_at) else add('expires', active + b.expire_after) end
  if b.template ~= '' then add('template', b.template) end
  for _, field in ipairs({ 'tags', 'metadata' }) do
    if #b[field] > SHORT then
      call('HSET', labels_key(b.id), field, b[field])
    elseif b[field] ~= '' then
      add(field, b[field])
    end
  end
  call('HSET', batch_key(b.id), unpack(fields))
end

local function write_jobs(b)
  local state, stream = b.scheduled and 'scheduled' or 'queued', key.ready[b.priority]
  for i = 0, b.count - 1 do
    local id, recipient = b.id .. '-' .. string.format('%d', i), ARGV[b.first + i]
    local fields = { 'state', state }
    if b.scheduled then
      call('ZADD', key.delayed, b.send_at, id)
      if b.priority == 'high' then call('ZADD', key.urgent, b.send_at, id) end
    else
      fields[3], fields[4] = 'sid', call('XADD', stream, '*', 'job', id)
    end
    if #recipient <= SHORT then
      fields[#fields + 1], fields[#fields + 2] = 'recipient', recipient
    else
      call('HSET', detail_key(id), 'recipient', recipient)
    end
    call('HSET', job_key(id), unpack(fields))
  end
  count(b, state, b.count)
  moved.accepted = (moved.accepted or 0) + b.count
  flush()
end

local answers = {}
for i = 1, tonumber(ARGV[3]) do
  local b = read_batch()
  local answer = known(b) or refused(b)
  if not answer then
    write_shared(b)
    write_jobs(b)
    if b.scheduled then waiting = waiting + b.count else used = used + b.count end
    answer = { 'ok', b.id, b.count, b.scheduled and 1 or 0, 0 }
  end
  answers[i] = answer
end
return answers
