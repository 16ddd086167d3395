#!lua
-- keep: keeps a message in the outbox, in the place of an earlier one of the same job; the oldest make room.
-- KEYS[1] the queue's prefix
-- ARGV    job id, message (JSON), its size in bytes, messages at most, bytes at most
-- returns how many are kept

local id, message, size = ARGV[1], ARGV[2], tonumber(ARGV[3])
local max_messages, max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])

local function drop(job)
  local bytes = tonumber(call('HGET', outbox_key(job), 'size')) or 0
  -- A negative zero is no integer to Redis.
  if bytes > 0 then call('HINCRBY', key.meta, 'outbox_bytes', -bytes) end
  call('UNLINK', outbox_key(job))
  call('ZREM', key.outbox, job)
end

drop(id)
call('HSET', outbox_key(id), 'message', message, 'size', size)
call('ZADD', key.outbox, call('HINCRBY', key.meta, 'outbox_sequence', 1), id)
local bytes = call('HINCRBY', key.meta, 'outbox_bytes', size)
-- One that is larger than the whole is not kept.
local oldest = call('ZRANGE', key.outbox, 0, 0)[1]
while oldest and (call('ZCARD', key.outbox) > max_messages or bytes > max_bytes) do
  drop(oldest)
  bytes = tonumber(call('HGET', key.meta, 'outbox_bytes'))
  oldest = call('ZRANGE', key.outbox, 0, 0)[1]
end
return call('ZCARD', key.outbox)
