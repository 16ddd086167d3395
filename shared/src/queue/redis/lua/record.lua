-- Part of the operations that show jobs: a job's record, and once what its batch shares.

local shown_batches, shown = {}, {}

local function show_batch(id)
  if shown[id] == nil then
    local batch = load_batch(id)
    shown[id] = batch ~= nil
    if batch then
      shown_batches[#shown_batches + 1] = { id, call('HGETALL', home(batch)), call('HGETALL', labels_key(id)) }
    end
  end
  return shown[id]
end

-- { id, job hash, long texts, timeline, due time }, or nil.
local function record(id)
  local job = call('HGETALL', job_key(id))
  if #job == 0 or not show_batch(string.match(id, '^(.+)%-%d+$') or '') then return nil end
  return {
    id, job, call('HGETALL', detail_key(id)), call('LRANGE', timeline_key(id), 0, -1), call('ZSCORE', key.delayed, id),
  }
end
