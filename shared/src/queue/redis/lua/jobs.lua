#!lua flags=allow-oom
-- jobs: one piece of a listing, newest first. Changes nothing.
-- KEYS[1] the queue's prefix
-- ARGV    at most how many records to look at, at most how many to return, batch to begin with | '', index in it below
--         which to begin | '', whether only that batch, status | '', tag | '', what the recipient's JSON in lower
--         case contains | ''
-- returns {records, their batches, looked at, id looked at last | '', whether more are left 0|1}
--         The last only narrows down: the caller compares the address.

local look, limit, from, below = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local only, status, tag, address = ARGV[5] == '1', ARGV[6], ARGV[7], ARGV[8]
local records, looked, last = {}, 0, ''

local function has_tag(id)
  if tag == '' then return true end
  local tags = call('HGET', home(load_batch(id)), 'tags') or call('HGET', labels_key(id), 'tags')
  if not tags then return false end
  local ok, names = pcall(cjson.decode, tags)
  for _, name in ipairs(ok and names or {}) do
    if name == tag then return true end
  end
  return false
end

local function matches(id)
  if status ~= '' and call('HGET', job_key(id), 'state') ~= status then return false end
  if address == '' then return true end
  local recipient = text_of(id, 'recipient')
  return recipient and string.find(string.lower(recipient), address, 1, true) ~= nil
end

-- Looks at a batch's jobs from an index downwards; returns false when it had to stop.
local function look_at(id, index)
  local batch, newer = load_batch(id)
  if newer then
    -- Not shown, but looked at.
    looked, last = looked + 1, id .. '-0'
    return looked < look
  end
  if not batch then return true end
  local tagged = has_tag(id)
  for i = math.min(index or batch.count, batch.count) - 1, 0, -1 do
    if looked >= look or #records >= limit then return false end
    local job = id .. '-' .. string.format('%d', i)
    looked, last = looked + 1, job
    if tagged and matches(job) then records[#records + 1] = record(job) end
  end
  return true
end

-- Entries that are searched for a batch that is gone: it was listed soon after its id was made.
local SEARCHED = 200

-- Where a batch stands among the others, and its entry, where there is still one. One that is gone is placed by the time
-- in its id (RFC 9562 §5.7).
local function place_of(id)
  local batch = load_batch(id)
  local place = batch and call('HGET', home(batch), 'entry')
  if place then return place, call('XRANGE', key.batches, place, place)[1] end
  local digits, ms = '0123456789abcdefghijklmnopqrstuv', 0
  for i = 1, 10 do ms = ms * 32 + (string.find(digits, string.sub(id, i, i), 1, true) or 1) - 1 end
  place = string.format('%d', math.floor(ms / 4)) .. '-0'
  for _, entry in ipairs(call('XRANGE', key.batches, place, '+', 'COUNT', SEARCHED)) do
    for _, listed in ipairs(entry[2]) do
      if listed == id then return entry[1], entry end
    end
  end
  return place
end

-- Looks at the batches of an entry, newest first; only at those behind `behind`, where it is given. Returns false when it
-- had to stop.
local function look_through(fields, behind)
  for i = #fields, 2, -2 do
    if behind then
      if fields[i] == behind then behind = nil end
    elseif not look_at(fields[i]) then
      return false
    end
  end
  return true
end

local finished, before = true, '+'
if from ~= '' then
  local place, entry = place_of(from)
  before = '(' .. place
  finished = look_at(from, below)
  if finished and not only and entry then finished = look_through(entry[2], from) end
end
while finished and not only do
  local page = call('XREVRANGE', key.batches, before, '-', 'COUNT', 20)
  if #page == 0 then break end
  for _, entry in ipairs(page) do
    before = '(' .. entry[1]
    finished = look_through(entry[2])
    if not finished then break end
  end
end
return { records, shown_batches, looked, last, finished and 0 or 1 }
