-- Changes what is still as it was read. KEYS: any. ARGV, three per key: what was read, or nothing; what it becomes; for
-- how many milliseconds it is kept. Answers 1 or 0 for each.
local answers = {}
for i, key in ipairs(KEYS) do
  local present = redis.call('GET', key) or ''
  answers[i] = 0
  if present == ARGV[3 * i - 2] then
    redis.call('SET', key, ARGV[3 * i - 1], 'PX', ARGV[3 * i])
    answers[i] = 1
  end
end
return answers
