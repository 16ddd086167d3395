-- Part of the operations that hand jobs out: what they tell of each job, and once of each batch of several.

local deliveries, delivered_batches, told = {}, {}, {}

-- Content that no other job has a use for goes along, as much as does not hold up others.
local SMALL, ALONG = 65536, 1048576
local along = 0

local function content_along(batch_id, bytes)
  if bytes > SMALL or along + bytes > ALONG then return false end
  along = along + bytes
  return call('GET', content_key(batch_id))
end

-- A delivery: job id, stream id, recipient, content where it goes along, of a batch of one job its facts and its template;
-- then, unless the job is plain: attempts, reclaims, marked 0|1, own time to send ms (0: none) | nil.
-- A batch: id, facts, template.
local function deliver(job)
  local batch = job.batch
  deliveries[#deliveries + 1] = {
    job.id, job.sid, job.recipient or call('HGET', detail_key(job.id), 'recipient'),
    batch.single and content_along(batch.id, batch.bytes), batch.single and batch.facts, batch.single and batch.template,
    job.attempts, job.reclaims, job.marked and 1 or 0, job.send_at,
  }
  if not batch.single and not told[batch.id] then
    told[batch.id] = true
    delivered_batches[#delivered_batches + 1] = { batch.id, batch.facts, batch.template }
  end
end
