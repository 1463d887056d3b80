-- Forgets an owner's claims. KEYS: a hash of "owner until" by claim. ARGV: owner, and the claims.
local mine = ARGV[1] .. ' '
local gone = {}
for i, present in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV, 2))) do
  if present and string.sub(present, 1, #mine) == mine then
    gone[#gone + 1] = ARGV[i + 1]
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
end
return {}
