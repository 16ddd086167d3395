#!lua
-- enqueue: accepts batches, each whole or not at all. The only operation that Redis refuses when its memory is full.
-- KEYS[1] the queue's prefix
-- ARGV    max_queue_size, max_scheduled, number of batches, then for each batch:
--         id, priority, number of jobs, what stands before `accepted` in its facts (state.lua), expire_after ms,
--         send_at ms|'', sender domain, tags (JSON)|'', metadata (JSON)|'', size of the content, content|'' (stored before),
--         template hash|'', bundle|'' (known to be stored), idempotency hash|'', then only if that is given:
--         fingerprint, keep ms; then the recipients
-- returns for each batch one of
--         {'ok', batch, count, scheduled 0|1, replayed 0|1}  {'full', used, max}  {'schedule_full', used, max}
--         {'too_large', max}  {'key_reuse'}  {'key_unreadable'}  {'need_content'}  {'need_bundle'}
-- A batch id that is known changes nothing and is answered as before. All are decided on before the first is written:
-- what fails later must not find half of a call done.

local max_queue, max_scheduled, size = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local used, waiting = jobs_in({ 'queued', 'retrying', 'sending', 'held' }), jobs_in({ 'scheduled' })

local at = 3
local function read_batch_args()
  local b = {
    id = ARGV[at + 1], priority = ARGV[at + 2], count = tonumber(ARGV[at + 3]), facts = ARGV[at + 4],
    expire_after = tonumber(ARGV[at + 5]), send_at = tonumber(ARGV[at + 6]), domain = ARGV[at + 7],
    tags = ARGV[at + 8], metadata = ARGV[at + 9], bytes = ARGV[at + 10], content = ARGV[at + 11],
    template = ARGV[at + 12], bundle = ARGV[at + 13], idem = ARGV[at + 14],
  }
  at = at + 14
  if b.idem ~= '' then
    b.fingerprint, b.keep = ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 2
  end
  b.first = at + 1
  at = at + b.count
  b.scheduled = b.send_at ~= nil and b.send_at > now
  return b
end

-- What was answered before to the batch's id or its idempotency key.
local function known_id(b)
  local before = load_batch(b.id)
  if before then
    return { 'ok', b.id, b.count, (before.send_at or 0) > before.accepted and 1 or 0, 0 }
  end
  local scheduled = call('HGET', batch_key(b.id), 'gone')
  return scheduled and { 'ok', b.id, b.count, tonumber(scheduled), 0 }
end

-- Batches of this call that will be written, by their keys.
local by_key = {}

local function known_key(b)
  if b.idem == '' then return nil end
  local first = by_key[b.idem]
  if not first then
    local stored = redis.pcall('GET', idem_key(b.idem))
    if not stored then return nil end
    local ok, decoded = pcall(cjson.decode, stored)
    if not ok or type(decoded) ~= 'table' then return { 'key_unreadable' } end
    first = decoded
  end
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

-- Returns what the batch's own hash holds, as a flat list.
local function write_shared(b)
  if b.idem ~= '' then
    local keep = math.max(now, b.scheduled and b.send_at or 0) - now + b.keep
    call('SET', idem_key(b.idem), cjson.encode({
      v = 1, fingerprint = b.fingerprint, batch = b.id, count = b.count, scheduled = b.scheduled,
    }), 'PX', math.max(keep, 1))
  end
  if b.content == '' then call('PERSIST', content_key(b.id)) end
  if b.template ~= '' then
    if b.bundle ~= '' then call('SET', template_key(b.template), b.bundle, 'NX') end
    call('HINCRBY', key.templates, b.template, 1)
  end
  local life = '+ -'
  if b.scheduled then
    life = string.format('- %d', b.send_at)
  elseif active ~= now then
    life = string.format('%d -', active + b.expire_after)
  end
  local fields = {
    'facts', b.facts .. string.format(' %d ', now) .. life .. ' ' .. b.bytes, 'domain', b.domain,
    'entry', call('XADD', key.batches, '*', 'batch', b.id),
  }
  if b.template ~= '' then fields[7], fields[8] = 'template', b.template end
  for _, field in ipairs({ 'tags', 'metadata' }) do
    if #b[field] > SHORT then
      call('HSET', labels_key(b.id), field, b[field])
    elseif b[field] ~= '' then
      fields[#fields + 1], fields[#fields + 2] = field, b[field]
    end
  end
  return fields
end

local function write_job(b, i, fields)
  local id, recipient, n = b.id .. '-' .. string.format('%d', i), ARGV[b.first + i], #fields
  fields[n + 1], fields[n + 2] = 'state', b.scheduled and 'scheduled' or 'queued'
  if b.scheduled then
    call('ZADD', key.delayed, b.send_at, id)
    if b.priority == 'high' then call('ZADD', key.urgent, b.send_at, id) end
  else
    fields[n + 3], fields[n + 4] = 'sid', call('XADD', key.ready[b.priority], '*', 'job', id)
  end
  if #recipient <= SHORT then
    n = #fields
    fields[n + 1], fields[n + 2] = 'recipient', recipient
  else
    call('HSET', detail_key(id), 'recipient', recipient)
  end
  call('HSET', job_key(id), unpack(fields))
end

local function write(b)
  local fields = write_shared(b)
  if b.count == 1 then
    write_job(b, 0, fields)
  else
    call('HSET', batch_key(b.id), 'refs', b.count, 'records', b.count, unpack(fields))
    for i = 0, b.count - 1 do write_job(b, i, {}) end
  end
  count(b, b.scheduled and 'scheduled' or 'queued', b.count)
  moved.accepted = (moved.accepted or 0) + b.count
end

local asked, ids = {}, {}
for i = 1, size do
  local b = read_batch_args()
  asked[i] = b
  ids[#ids + 1] = batch_key(b.id)
  if b.count == 1 then ids[#ids + 1] = only_job_key(b.id) end
end
-- Mostly all are new, which one question tells.
local all_new, seen = call('EXISTS', unpack(ids)) == 0, {}
local answers, accepted, contents = {}, {}, {}
for i, b in ipairs(asked) do
  local answer = seen[b.id] or (not all_new and known_id(b)) or known_key(b) or refused(b)
  if not answer then
    answer = { 'ok', b.id, b.count, b.scheduled and 1 or 0, 0 }
    seen[b.id], accepted[#accepted + 1] = answer, b
    if b.idem ~= '' then
      by_key[b.idem] = { fingerprint = b.fingerprint, batch = b.id, count = b.count, scheduled = b.scheduled }
    end
    if b.scheduled then waiting = waiting + b.count else used = used + b.count end
    if b.content ~= '' then
      contents[#contents + 1], contents[#contents + 2] = content_key(b.id), b.content
    end
  end
  answers[i] = answer
end

if #contents > 0 then call('MSET', unpack(contents)) end
for _, b in ipairs(accepted) do write(b) end
flush()
return answers
