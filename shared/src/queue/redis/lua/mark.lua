#!lua flags=allow-oom
-- mark: notes that a job's content is about to go out.
-- KEYS[1] the queue's prefix
-- ARGV    consumer, then job ids
-- returns the ids that the consumer does not hold: theirs must not go out

local me, lost = ARGV[1], {}
for i = 2, #ARGV do
  if is_held_by(load_job(ARGV[i]), me) then
    call('HSET', job_key(ARGV[i]), 'marked', 1, 'changed', 1)
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
