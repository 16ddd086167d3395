#!lua flags=allow-oom
-- relay_pause: pauses a relay, or tells of its pause.
-- KEYS[1] the queue's prefix
-- ARGV    relay's name, then to pause it: cause (down, throttled), for how long ms, probes, reply (JSON)
-- returns {since, until, probes, cause, reply} or {} where it is in use

local relay = relay_key(ARGV[1])
local h = call('HMGET', relay, 'since', 'until', 'probes', 'cause', 'reply')
local paused = h[4] and (h[4] == 'down' or tonumber(h[2]) > now)
if #ARGV == 1 then return paused and h or {} end

local cause, till, probes, since = ARGV[2], now + tonumber(ARGV[3]), tonumber(ARGV[4]), now
if paused then
  -- One that is down is not turned into a throttled one; a report with fewer failed probes than are known is old.
  if h[4] == 'down' and (cause == 'throttled' or probes < tonumber(h[3])) then return h end
  if h[4] == cause then
    since = tonumber(h[1])
    if probes == tonumber(h[3]) then till = math.max(till, tonumber(h[2])) end
  end
end
call('HSET', relay, 'v', 1, 'since', since, 'until', till, 'probes', probes, 'cause', cause, 'reply', ARGV[5])
call('HDEL', relay, 'prober', 'probe_until')
if cause == 'down' then call('PERSIST', relay) else call('PEXPIREAT', relay, till) end
return { since, till, probes, cause, ARGV[5] }
