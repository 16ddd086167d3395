#!lua flags=allow-oom
-- pause: stops or restarts the handing out of jobs. A restart wakes the consumers.
-- KEYS[1] the queue's prefix
-- ARGV    1 to stop, 0 to restart
-- returns 1 where it changed something

if ARGV[1] == '1' then
  return call('HSETNX', key.meta, 'paused_at', now)
end
if not paused_at then return 0 end
call('HINCRBY', key.meta, 'paused_ms', now - paused_at)
call('HDEL', key.meta, 'paused_at')
call('XADD', key.wake, 'MAXLEN', 1, '*', 'resumed', now)
return 1
