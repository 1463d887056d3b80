-- Extends an owner's claims. KEYS: a hash of "owner until" by claim. ARGV: owner, lease in milliseconds, and the
-- claims.
local time = redis.call('TIME')
local mine = ARGV[1] .. ' '
local value = mine .. string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
local kept = {}
for i, present in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV, 3))) do
  if present and string.sub(present, 1, #mine) == mine then
    kept[#kept + 1] = ARGV[i + 2]
    kept[#kept + 1] = value
  end
end
if #kept > 0 then
  redis.call('HSET', KEYS[1], unpack(kept))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {}
