#!lua flags=allow-oom
-- take_probe: makes one consumer of the fleet the one that probes a relay which is down.
-- KEYS[1] the queue's prefix
-- ARGV    relay's name, consumer, for how long ms
-- returns 1 where it is the caller

local relay = relay_key(ARGV[1])
local h = call('HMGET', relay, 'cause', 'until', 'prober', 'probe_until')
if h[1] ~= 'down' or tonumber(h[2]) > now then return 0 end
if h[3] and h[3] ~= ARGV[2] and tonumber(h[4]) > now then return 0 end
call('HSET', relay, 'prober', ARGV[2], 'probe_until', now + tonumber(ARGV[3]))
return 1
