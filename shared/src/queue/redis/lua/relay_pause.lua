#!lua flags=allow-oom
-- relay_pause: pauses a relay, or tells of its pause.
-- KEYS[1] the queue's prefix
-- ARGV    relay's name, then to pause it: cause (down, throttled), for how long ms, probes, reply (JSON)
-- returns {since, until, probes, cause, reply} or {} where it is in use

local relay = relay_key(ARGV[1])
local h = call('HMGET', relay, 'since', 'until', 'probes', 'cause', 'reply')
local paused = h[4] and (h[4] == 'down' or tonumber(h[2]) > now)
if #ARGV == 1 then return paused and h or {} end

local was_down = paused and h[4] == 'down'
local cause, till = was_down and 'down' or ARGV[2], now + tonumber(ARGV[3])
local since, probes = was_down and h[1] or now, ARGV[4]
if was_down and ARGV[2] == 'throttled' then
  till, probes = math.max(till, tonumber(h[2])), h[3]
end
call('HSET', relay, 'v', 1, 'since', since, 'until', till, 'probes', probes, 'cause', cause, 'reply', ARGV[5])
call('HDEL', relay, 'prober', 'probe_until')
if cause == 'down' then call('PERSIST', relay) else call('PEXPIREAT', relay, till) end
return { since, till, probes, cause, ARGV[5] }
