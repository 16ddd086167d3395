#!lua flags=allow-oom
-- extend: renews a consumer's leases. The test of the owner and the renewal are one step: XCLAIM alone would take a
-- job back from its new owner.
-- KEYS[1] the queue's prefix
-- ARGV    consumer, then job ids
-- returns the ids that the consumer does not hold

local me, lost = ARGV[1], {}
for i = 2, #ARGV do
  local job = load_job(ARGV[i])
  -- Nothing is renewed where the group has been made anew.
  if not is_held_by(job, me) or #redis.pcall('XCLAIM', job.ready, GROUP, me, 0, job.sid, 'JUSTID') == 0 then
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
