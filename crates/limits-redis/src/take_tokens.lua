-- Takes tokens from buckets. KEYS: the buckets. ARGV, four per bucket: tokens per second, burst, wanted, and how many
-- were used while this could not be asked. Answers two integers per bucket: granted, and microseconds until
-- the next token where fewer than wanted were. A bucket is kept until it is full again.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answers = {}
for i, key in ipairs(KEYS) do
  local rate, burst = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local wanted, used = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local tokens, at = burst, now
  local bucket = redis.call('GET', key)
  if bucket then
    local space = string.find(bucket, ' ', 1, true)
    tokens, at = tonumber(string.sub(bucket, 1, space - 1)), tonumber(string.sub(bucket, space + 1))
  end
  -- A clock that was set back gives nothing, and takes nothing away.
  tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000000)
  tokens = math.max(0, tokens - used)
  local granted = math.min(wanted, math.floor(tokens + 1e-9))
  tokens = math.max(0, tokens - granted)
  local full_in = math.ceil((burst - tokens) / rate * 1000) + 1
  redis.call('SET', key, string.format('%.17g %.0f', tokens, now), 'PX', string.format('%.0f', full_in))
  answers[2 * i - 1] = granted
  answers[2 * i] = granted < wanted and math.ceil((1 - tokens) / rate * 1000000) or 0
end
return answers
