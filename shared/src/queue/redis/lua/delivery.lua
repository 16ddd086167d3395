-- Part of the operations that hand jobs out: what they tell of each job, and once of each batch.

local deliveries, delivered_batches, told = {}, {}, {}

local function deliver(job)
  deliveries[#deliveries + 1] = {
    job.id, job.sid, job.attempts, job.reclaims, job.marked and 1 or 0, job.send_at or false,
    job.recipient or call('HGET', detail_key(job.id), 'recipient'),
  }
  local batch = job.batch
  if not told[batch.id] then
    told[batch.id] = true
    delivered_batches[#delivered_batches + 1] = {
      batch.id, batch.priority, batch.max_attempts, batch.ambiguous, batch.accepted, batch.template,
    }
  end
end
