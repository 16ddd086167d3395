-- Part of the operations that hand jobs out: what they tell of each job, and once of each batch.

local deliveries, delivered_batches, told = {}, {}, {}

-- Content that no other job has a use for goes along, as much as does not hold up others.
local SMALL, ALONG = 65536, 1048576
local along = 0

local function content_of(batch)
  if not batch.single or batch.bytes > SMALL or along + batch.bytes > ALONG then return false end
  along = along + batch.bytes
  return call('GET', content_key(batch.id))
end

local function deliver(job)
  deliveries[#deliveries + 1] = {
    job.id, job.sid, job.attempts, job.reclaims, job.marked and 1 or 0, job.send_at or false,
    job.recipient or call('HGET', detail_key(job.id), 'recipient'), content_of(job.batch),
  }
  local batch = job.batch
  if not told[batch.id] then
    told[batch.id] = true
    delivered_batches[#delivered_batches + 1] = {
      batch.id, batch.priority, batch.max_attempts, batch.ambiguous, batch.accepted, batch.template,
    }
  end
end
