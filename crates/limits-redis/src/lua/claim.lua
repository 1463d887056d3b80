-- Claims for an owner what is free or its own. KEYS: the claims. ARGV: owner, lease in milliseconds. Answers 1 or 0 for
-- each.
local answers = {}
for i, key in ipairs(KEYS) do
  local owner = redis.call('GET', key)
  if owner and owner ~= ARGV[1] then
    answers[i] = 0
  else
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    answers[i] = 1
  end
end
return answers
