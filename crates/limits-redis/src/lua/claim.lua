-- Claims for an owner what is free, expired or its own. KEYS: a hash of "owner until" by claim. ARGV: owner, lease in
-- milliseconds, and the claims. Answers which of these another one has, counted from one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local latest = now + ARGV[2]
local mine = ARGV[1] .. ' '
local value = mine .. string.format('%.0f', latest)
local taken, others = {}, {}
for i, present in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV, 3))) do
  local until_ = present and string.sub(present, 1, #mine) ~= mine and tonumber(string.match(present, ' (%d+)$'))
  -- Later than that none is: the clock was set back.
  if until_ and until_ > now and until_ <= latest then
    others[#others + 1] = i
  else
    taken[#taken + 1] = ARGV[i + 2]
    taken[#taken + 1] = value
  end
end
if #taken > 0 then
  -- A value of more than 64 bytes makes it a table: as a list, as hashes of some hundred entries are else, each claim
  -- would be looked for among all.
  redis.call('HSET', KEYS[1], '', string.rep('-', 65), unpack(taken))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return others
