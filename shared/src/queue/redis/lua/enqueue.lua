#!lua
-- enqueue: accepts batches, each whole or not at all. The only operation that Redis refuses when its memory is full.
-- KEYS[1] the queue's prefix
-- ARGV    max_queue_size, max_scheduled, number of plain batches, then for each of them:
--         id, priority, what stands before `accepted` in its facts (state.lua), expire_after ms, sender domain, size of the
--         content, recipient
--         then for each other batch:
--         id, priority, what stands before `accepted` in its facts, expire_after ms, sender domain, size of the content,
--         content|'' (stored before), number of jobs, send_at ms|'', tags (JSON)|'', metadata (JSON)|'',
--         template hash|'', bundle|'' (known to be stored), idempotency hash|'', then only if that is given:
--         fingerprint, keep ms; then the recipients
--         A plain batch is one job with none of that, and a domain and a recipient that are short. Its content was set in
--         the same transaction, before this, and is removed where it is not wanted.
-- returns for each batch one of
--         1 (a plain one that is new)  {'ok', batch, count, scheduled 0|1, replayed 0|1}  {'full', used, max}  {'schedule_full', used, max}
--         {'too_large', max}  {'key_reuse'}  {'key_unreadable'}  {'need_content'}  {'need_bundle'}
-- A batch id that is known changes nothing and is answered as before. All are decided on before the first is written:
-- what fails later must not find half of a call done.

local max_queue, max_scheduled, plain = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local used, waiting = places_taken()

-- Arguments of a plain batch.
local PLAIN = 7

-- A batch from its arguments behind `at`, and where they end.
local function read_batch_args(at, is_plain)
  local b = {
    id = ARGV[at + 1], priority = ARGV[at + 2], facts = ARGV[at + 3], expire_after = tonumber(ARGV[at + 4]),
    domain = ARGV[at + 5], bytes = ARGV[at + 6],
  }
  if is_plain then
    b.content, b.count, b.tags, b.metadata, b.template, b.bundle, b.idem = '', 1, '', '', '', '', ''
    b.plain, b.first = true, at + PLAIN
    return b, at + PLAIN
  end
  b.content = ARGV[at + 7]
  b.count, b.send_at, b.tags, b.metadata = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9]), ARGV[at + 10], ARGV[at + 11]
  b.template, b.bundle, b.idem = ARGV[at + 12], ARGV[at + 13], ARGV[at + 14]
  at = at + 14
  if b.idem ~= '' then
    b.fingerprint, b.keep = ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 2
  end
  b.first = at + 1
  b.scheduled = b.send_at ~= nil and b.send_at > now
  return b, at + b.count
end

-- What was answered before to the batch's id or its idempotency key.
local function known_id(b)
  local before = load_batch(b.id)
  if before then
    return { 'ok', b.id, b.count, (before.send_at or 0) > before.accepted and 1 or 0, 0 }
  end
  local scheduled = call('HGET', b.count == 1 and only_job_key(b.id) or batch_key(b.id), 'gone')
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

-- What stands between `accepted` and the size in the facts of a batch that is to be sent now.
local function life_of(expire_after)
  return active == now and ' + - ' or string.format(' %d - ', active + expire_after)
end

-- Batches in one entry of the listing: one that is gone is listed as long as another of its entry is there.
local LISTED_TOGETHER = 8
-- Where a batch is listed, by its id.
local entry_of = {}

local function list(ids)
  for first = 1, #ids, LISTED_TOGETHER do
    local last, fields = math.min(first + LISTED_TOGETHER - 1, #ids), {}
    for i = first, last do
      fields[#fields + 1] = 'batch'
      fields[#fields + 1] = ids[i]
    end
    local entry = call('XADD', key.batches, '*', unpack(fields))
    if last > first then call('HSET', key.several, entry, last - first + 1) end
    for i = first, last do entry_of[ids[i]] = entry end
  end
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
  local life = b.scheduled and string.format(' - %d ', b.send_at) or life_of(b.expire_after)
  local fields = {
    'facts', b.facts .. ' ' .. now_text .. life .. b.bytes, 'domain', b.domain,
    'entry', entry_of[b.id],
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
  count(b.priority, b.scheduled and 'scheduled' or 'queued', b.count)
  moved.accepted = (moved.accepted or 0) + b.count
end

-- Of a batch that is not accepted now; one that was accepted before may need it still.
local function drop_unwanted_content(id)
  local batch, newer = load_batch(id)
  if newer or (batch and not batch.single) then return end
  local job = batch and load_job(id .. '-0')
  if not (job and NEEDS_CONTENT[job.state]) then unlinked[#unlinked + 1] = content_key(id) end
end

-- A plain batch whose job is in `job`, as `write` would.
local function write_plain(at, job)
  local id, priority = ARGV[at + 1], ARGV[at + 2]
  call('HSET', job,
    'facts', ARGV[at + 3] .. ' ' .. now_text .. life_of(ARGV[at + 4]) .. ARGV[at + 6], 'domain', ARGV[at + 5],
    'entry', entry_of[id], 'state', 'queued', 'sid', call('XADD', key.ready[priority], '*', 'job', id .. '-0'), 'recipient', ARGV[at + 7])
  return priority
end

-- Mostly all are new and there is room, which few questions tell; then the plain ones need not be looked at one by one.
local answers, listed, jobs, met, is_twice = {}, {}, {}, {}, false
for i = 1, plain do
  local id = ARGV[4 + (i - 1) * PLAIN]
  listed[i], jobs[i] = id, only_job_key(id)
  is_twice = is_twice or met[id]
  met[id] = true
end
local at = 3 + plain * PLAIN
local others, ids = {}, { unpack(jobs) }
while at < #ARGV do
  others[#others + 1], at = read_batch_args(at, false)
  local b = others[#others]
  is_twice = is_twice or met[b.id]
  ids[#ids + 1] = b.count == 1 and only_job_key(b.id) or batch_key(b.id)
end
local all_new = call('EXISTS', unpack(ids)) == 0
if not all_new or is_twice or used + plain > max_queue then
  for i = plain, 1, -1 do table.insert(others, 1, (read_batch_args(3 + (i - 1) * PLAIN, true))) end
  plain, listed = 0, {}
end
used = used + plain

local accepted, contents, seen = {}, {}, {}
for i, b in ipairs(others) do
  local answer = seen[b.id] or (not all_new and known_id(b)) or known_key(b) or refused(b)
  if not answer then
    answer = { 'ok', b.id, b.count, b.scheduled and 1 or 0, 0 }
    seen[b.id], accepted[#accepted + 1], listed[#listed + 1] = answer, b, b.id
    if b.idem ~= '' then
      by_key[b.idem] = { fingerprint = b.fingerprint, batch = b.id, count = b.count, scheduled = b.scheduled }
    end
    if b.scheduled then waiting = waiting + b.count else used = used + b.count end
    if b.content ~= '' then
      contents[#contents + 1], contents[#contents + 2] = content_key(b.id), b.content
    end
  end
  if b.plain and answer ~= seen[b.id] then drop_unwanted_content(b.id) end
  answers[plain + i] = answer
end

if #contents > 0 then call('MSET', unpack(contents)) end
if #listed > 0 then list(listed) end
for i = 1, plain do
  count(write_plain(3 + (i - 1) * PLAIN, jobs[i]), 'queued', 1)
  answers[i] = 1
end
if plain > 0 then moved.accepted = plain end
for _, b in ipairs(accepted) do write(b) end
flush()
return answers
