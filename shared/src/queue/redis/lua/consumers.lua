-- Part of the operations that forget consumers.

-- Deleting a consumer deletes its pending list: only one that holds nothing is forgotten, in the same step.
local function forget_consumer(name)
  for _, priority in ipairs(PRIORITIES) do
    if #redis.pcall('XPENDING', key.ready[priority], GROUP, '-', '+', 1, name) > 0 then return false end
  end
  for _, priority in ipairs(PRIORITIES) do
    redis.pcall('XGROUP', 'DELCONSUMER', key.ready[priority], GROUP, name)
  end
  call('ZREM', key.workers, name)
  return true
end
