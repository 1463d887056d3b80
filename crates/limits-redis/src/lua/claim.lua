-- Claims for an owner what is free, expired or its own. KEYS: a hash of "owner until" by claim. ARGV: owner, lease in
-- milliseconds, and the claims. Answers which of these another one has, counted from one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mine = ARGV[1] .. ' '
local value = mine .. string.format('%.0f', now + ARGV[2])
local taken, others = {}, {}
for i, present in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV, 3))) do
  if present and string.sub(present, 1, #mine) ~= mine and tonumber(string.match(present, '%d+$')) > now then
    others[#others + 1] = i
  else
    taken[#taken + 1] = ARGV[i + 2]
    taken[#taken + 1] = value
  end
end
if #taken > 0 then
  redis.call('HSET', KEYS[1], unpack(taken))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return others
