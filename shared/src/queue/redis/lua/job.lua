#!lua flags=allow-oom
-- job: records of jobs. Changes nothing.
-- KEYS[1] the queue's prefix
-- ARGV    job ids
-- returns {records of those that are known, their batches}

local records = {}
for _, id in ipairs(ARGV) do records[#records + 1] = record(id) end
return { records, shown_batches }
