#!lua flags=allow-oom
-- batch: a batch's record. Changes nothing.
-- KEYS[1] the queue's prefix
-- ARGV    batch id
-- returns {batch, jobs by state as a flat list}, or {} where it is not known

local batch = load_batch(ARGV[1])
if not batch then return {} end
show_batch(batch.id)
local states = {}
for i = 0, batch.count - 1 do
  local state = call('HGET', job_key(batch.id .. '-' .. string.format('%d', i)), 'state')
  -- One whose record is gone is still counted under the state that it ended in.
  if state then states[state] = (states[state] or 0) + 1 end
end
for state in pairs(FINISHED) do
  local removed = tonumber(call('HGET', batch_key(batch.id), 'removed:' .. state)) or 0
  if removed > 0 then states[state] = (states[state] or 0) + removed end
end
local flat = {}
for state, n in pairs(states) do
  flat[#flat + 1], flat[#flat + 2] = state, n
end
return { shown_batches[1], flat }
